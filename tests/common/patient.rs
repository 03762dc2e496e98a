//! A connection for tests: it bears with a machine that has other things to do.

use tbrdma::Connection;

/// A connection that gives a peer some seconds to answer: its threads, the one that serves it above all, may have to wait for a core. By default it is
/// half of one.
pub(crate) fn patient() -> Connection {
    let mut connection = Connection::default();
    connection.timeout = 17;
    connection
}
