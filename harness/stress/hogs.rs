//! Threads that use up cores, and do nothing else.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Some threads. They end with this value.
#[derive(Debug, Default)]
pub struct Hogs {
    enough: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Hogs {
    /// Has so many from now on. Of those that the system does not give there are fewer.
    pub fn keep(&mut self, count: u32) {
        if self.threads.len() == count as usize {
            return;
        }
        self.enough.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.enough = Arc::default();
        let hog = |_| {
            let enough = Arc::clone(&self.enough);
            std::thread::Builder::new().name("hog".to_owned()).spawn(move || {
                while !enough.load(Ordering::Relaxed) {
                    spin_loop();
                }
            })
        };
        self.threads = (0..count).map_while(|number| hog(number).ok()).collect();
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.keep(0);
    }
}
