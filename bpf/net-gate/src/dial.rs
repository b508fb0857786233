//! From a destination to a connection on the host's side: resolve, check, and dial the address that was checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::address;
use crate::table::{Destination, Opening, Table};

/// Longest time for the system's resolver.
const RESOLVE_TIME: Duration = Duration::from_secs(10);
/// Longest time for all addresses of a name together.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;
/// Look-ups of one sandbox at once. Each has a thread of the runtime while it lasts.
pub(crate) const LOOKUPS: usize = 32;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The address is not one that the rule may lead to.
    Refused(String),
    /// No address, or nobody answered there.
    Failed(String),
}

/// Checks what can be checked before anybody is asked: an address that the client brought itself.
pub(crate) fn check_before(destination: &Destination, opening: &Opening) -> Result<(), DialError> {
    let Destination::Address(address) = destination else { return Ok(()) };
    let own = own()?;
    address::check_literal(*address, &opening.ranges, &opening.opened, &own).map_err(DialError::Refused)
}

/// Whether this address would be dialled for this destination where this is open.
pub(crate) fn may_dial(destination: &Destination, opening: &Opening, peer: IpAddr) -> bool {
    match destination {
        Destination::Address(_) => check_before(destination, opening).is_ok(),
        Destination::Name(_) => own().is_ok_and(|own| address::check(peer, &opening.opened, &own).is_ok()),
    }
}

/// Dials. The connection's peer is one of the addresses that passed the check.
pub(crate) async fn dial(
    table: &Table,
    destination: &Destination,
    port: u16,
    opening: &Opening,
    lookups: &Semaphore,
) -> Result<TcpStream, DialError> {
    let addresses = match destination {
        Destination::Address(address) => {
            check_before(destination, opening)?;
            vec![IpAddr::V4(*address)]
        }
        Destination::Name(name) => {
            let answers = match table.host(name) {
                Some(address) => vec![address],
                None => resolve(name, lookups).await?,
            };
            let own = own()?;
            let mut refused = None;
            let mut passed = Vec::new();
            for answer in answers {
                match address::check(answer, &opening.opened, &own) {
                    Ok(()) => passed.push(answer),
                    Err(why) => refused = Some(why),
                }
            }
            if let (true, Some(why)) = (passed.is_empty(), refused) {
                return Err(DialError::Refused(format!("{name} leads to a reserved address: {why}")));
            }
            passed
        }
    };
    connect(destination, &addresses, port).await
}

fn own() -> Result<std::collections::HashSet<IpAddr>, DialError> {
    address::own()
        .map_err(|error| DialError::Refused(format!("the host's addresses cannot be read ({error})")))
}

/// The system's resolver (nsswitch.conf(5), so /etc/hosts too). IPv4 first: more hosts have it on both sides.
async fn resolve(name: &str, lookups: &Semaphore) -> Result<Vec<IpAddr>, DialError> {
    let fail = |why: String| DialError::Failed(format!("{name} cannot be resolved: {why}"));
    let look_up = async {
        let _permit = lookups.acquire().await.map_err(io::Error::other)?;
        tokio::net::lookup_host((name, 0)).await.map(|answers| answers.map(|answer| answer.ip()).collect())
    };
    let mut answers: Vec<IpAddr> = match timeout(RESOLVE_TIME, look_up).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(error)) => return Err(fail(error.to_string())),
        Err(_) => return Err(fail(format!("no answer within {} s", RESOLVE_TIME.as_secs()))),
    };
    answers.sort_by_key(IpAddr::is_ipv6);
    answers.dedup();
    if answers.is_empty() { Err(fail("it has no address".into())) } else { Ok(answers) }
}

/// Tries the addresses in turn; each gets its share of the time that is left.
async fn connect(destination: &Destination, addresses: &[IpAddr], port: u16) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + CONNECT_TIME;
    let addresses = &addresses[..addresses.len().min(MOST_ADDRESSES)];
    let mut last = format!("no address of {destination}");
    for (index, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - index).unwrap_or(1);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        let target = SocketAddr::new(*address, port);
        last = match timeout_at(Instant::now() + share, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => format!("{target}: {error}"),
            Err(_) => format!("{target}: no answer in time"),
        };
    }
    Err(DialError::Failed(format!("{destination} cannot be reached: {last}")))
}
