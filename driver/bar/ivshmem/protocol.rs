//! What an ivshmem server says, as a value that is told each message: signed 64-bit numbers, little-endian, some with a descriptor.

/// What a message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Part of the introduction; nothing to be done.
    Nothing,
    /// The descriptor is the memory.
    Memory,
    /// The descriptor is the next event counter of this one, who may be ourselves: one a vector, from vector 0 on.
    Bell(u16),
    /// This one is gone.
    Left(u16),
}

/// How far the introduction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Version,
    Id,
    Memory,
    Peers,
}

/// One connection with a server, as heard so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conversation {
    stage: Stage,
    id: u16,
}

impl Conversation {
    /// Our own number; `None` before it was said.
    pub(super) fn id(&self) -> Option<u16> {
        matches!(self.stage, Stage::Memory | Stage::Peers).then_some(self.id)
    }

    /// Hears the next message.
    ///
    /// # Errors
    /// It does not belong here; nothing that comes behind it can be understood.
    pub(super) fn hear(&mut self, number: i64, has_descriptor: bool) -> Result<Said, &'static str> {
        let id = u16::try_from(number);
        match (self.stage, has_descriptor) {
            (Stage::Version, false) if number == 0 => {
                self.stage = Stage::Id;
                Ok(Said::Nothing)
            }
            (Stage::Version, _) => Err("its first word is another version"),
            (Stage::Id, false) => {
                self.id = id.map_err(|_| "the number it gives us is none of 16 bits")?;
                self.stage = Stage::Memory;
                Ok(Said::Nothing)
            }
            (Stage::Memory, true) if number == -1 => {
                self.stage = Stage::Peers;
                Ok(Said::Memory)
            }
            (Stage::Peers, true) => {
                Ok(Said::Bell(id.map_err(|_| "it names a peer by a number that is none of 16 bits")?))
            }
            (Stage::Peers, false) => match id {
                Ok(id) if id != self.id => Ok(Said::Left(id)),
                _ => Err("it says that we are gone, or names nobody"),
            },
            (Stage::Id | Stage::Memory, _) => Err("it does not begin with our number and the memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tbrdma_proto::fault::Random;

    #[test]
    fn an_introduction_names_us_the_memory_and_who_else_is_there() {
        let mut talk = Conversation::default();
        assert_eq!((talk.hear(0, false), talk.id()), (Ok(Said::Nothing), None));
        assert_eq!((talk.hear(7, false), talk.id()), (Ok(Said::Nothing), Some(7)));
        assert_eq!(talk.hear(-1, true), Ok(Said::Memory));
        for id in [3, 3, 7, 7, 9] {
            assert_eq!(talk.hear(id.into(), true), Ok(Said::Bell(id)));
        }
        assert_eq!(talk.hear(3, false), Ok(Said::Left(3)));
    }

    #[test]
    fn what_does_not_belong_there_is_refused() {
        let refused = |messages: &[(i64, bool)]| {
            let mut talk = Conversation::default();
            let (last, before) = messages.split_last().unwrap();
            assert!(before.iter().all(|(number, fd)| talk.hear(*number, *fd).is_ok()));
            talk.hear(last.0, last.1).is_err()
        };
        assert!(refused(&[(1, false)]) && refused(&[(0, true)]) && refused(&[(i64::MIN, false)]));
        for wrong in [(-1, false), (65536, false), (1, true)] {
            assert!(refused(&[(0, false), wrong]), "{wrong:?}");
        }
        for wrong in [(-1, false), (1, true), (-2, true)] {
            assert!(refused(&[(0, false), (1, false), wrong]), "{wrong:?}");
        }
        for wrong in [(-1, true), (-1, false), (1, false), (65536, true), (i64::MAX, false)] {
            assert!(refused(&[(0, false), (1, false), (-1, true), wrong]), "{wrong:?}");
        }
    }

    #[test]
    fn no_conversation_is_too_odd_to_be_heard() {
        let mut random = Random::new(1);
        for _ in 0..2_000 {
            let mut talk = Conversation::default();
            let mut memories = 0;
            for _ in 0..20 {
                let number = random.next_u64() as i64 >> (random.next_u64() % 64);
                match talk.hear(number, random.next_u64().is_multiple_of(2)) {
                    Ok(Said::Memory) => memories += 1,
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            assert!(memories <= 1);
        }
    }
}
