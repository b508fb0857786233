//! What BPF reports: `struct clawsec_event` and the texts behind it.

use super::abi::ExecResult;

/// Size of `struct clawsec_event`.
pub const EVENT_SIZE: usize = 144;

/// Size of `name` of `struct clawsec_refusal`.
const NAME_SIZE: usize = 256;

const FLAG_FORKED: u32 = 1;
const FLAG_DELETED: u32 = 2;
const FLAG_PATH_PARTIAL: u32 = 4;
const FLAG_CWD_PARTIAL: u32 = 8;

/// An entry of the ring buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub process: u32,
    pub uid: u32,
    pub gid: u32,
    pub sandbox: u32,
    pub cgroup: u64,
    /// Number of the exec: approved or seen now, or of the image that ended. 0 only for one that was refused unasked.
    pub exec: u64,
    pub comm: String,
    /// When, ns of CLOCK_BOOTTIME.
    pub time: u64,
}

/// What an [`Event`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// An image was loaded.
    Exec(Box<Loaded>),
    /// An image was not loaded: BPF-LSM refused it at this file.
    Refused {
        result: ExecResult,
        thread: u32,
        device: u32,
        inode: u64,
        /// What execve was called with, up to 255 bytes.
        name: String,
    },
    /// A process ended.
    Exit {
        /// As wait(2) encodes it.
        status: i32,
        /// Since when it ran its image, ns of CLOCK_BOOTTIME.
        began: u64,
        /// It had the image from the process that forked it.
        forked: bool,
    },
}

/// A new image, as it stood in memory before its first instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub result: ExecResult,
    /// The thread that called execve, under the id it had then.
    pub thread: u32,
    /// Number of the exec whose image called, 0 for unknown.
    pub parent_exec: u64,
    pub device: u32,
    pub inode: u64,
    pub argc: u32,
    /// The file has no name any more.
    pub deleted: bool,
    /// Path of the file, from the root of the process.
    pub path: Cut,
    /// The file name that was executed, when it was a script; else empty.
    pub script: Vec<u8>,
    pub cwd: Cut,
    /// Each argument with its terminating zero.
    pub argv: Cut,
    /// Each variable with its terminating zero.
    pub environment: Cut,
}

/// A text, and whether it is all there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    pub bytes: Vec<u8>,
    /// A part is missing.
    pub partial: bool,
}

// Up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl Event {
    /// `None` for bytes that are no event.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let mut rest = bytes.get(EVENT_SIZE..)?;
        let flags = u32_at(104)?;
        let kind = match u32_at(0)? {
            1 => {
                let mut next = |size_at: usize| {
                    let (text, after) = rest.split_at_checked(u32_at(size_at)? as usize)?;
                    rest = after;
                    Some(text.to_vec())
                };
                let (path, script, cwd) = (next(108)?, next(112)?, next(116)?);
                let (argv, environment) = (next(120)?, next(124)?);
                let cut = |bytes: Vec<u8>, whole: u64| Cut { partial: bytes.len() as u64 != whole, bytes };
                EventKind::Exec(Box::new(Loaded {
                    result: u32_at(4)?.into(),
                    thread: u32_at(8)?,
                    parent_exec: u64_at(48)?,
                    inode: u64_at(56)?,
                    device: u32_at(64)?,
                    argc: u32_at(68)?,
                    deleted: flags & FLAG_DELETED != 0,
                    path: Cut { bytes: path, partial: flags & FLAG_PATH_PARTIAL != 0 },
                    script,
                    cwd: Cut { bytes: cwd, partial: flags & FLAG_CWD_PARTIAL != 0 },
                    argv: cut(argv, u64_at(128)?),
                    environment: cut(environment, u64_at(136)?),
                }))
            }
            2 => EventKind::Exit {
                status: u32_at(28)?.cast_signed(),
                began: u64_at(96)?,
                forked: flags & FLAG_FORKED != 0,
            },
            3 => EventKind::Refused {
                result: u32_at(4)?.into(),
                thread: u32_at(8)?,
                inode: u64_at(56)?,
                device: u32_at(64)?,
                name: text(bytes.get(EVENT_SIZE..EVENT_SIZE + NAME_SIZE)?),
            },
            _ => return None,
        };
        let comm = text(bytes.get(72..88)?);
        Some(Self {
            kind,
            process: u32_at(12)?,
            uid: u32_at(16)?,
            gid: u32_at(20)?,
            sandbox: u32_at(24)?,
            cgroup: u64_at(32)?,
            exec: u64_at(40)?,
            comm,
            time: u64_at(88)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u8, sizes: [u32; 5], texts: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; EVENT_SIZE];
        bytes[0] = kind;
        for (number, size) in sizes.into_iter().enumerate() {
            bytes[108 + 4 * number..][..4].copy_from_slice(&size.to_ne_bytes());
        }
        bytes.extend_from_slice(texts);
        bytes
    }

    #[test]
    fn every_cut_of_an_event_is_refused() {
        let bytes = event(1, [2, 0, 1, 2, 4], b"/a/x\0A=1\0");
        for length in 0..bytes.len() {
            assert_eq!(Event::parse(&bytes[..length]), None, "{length} bytes");
        }
        let Some(Event { kind: EventKind::Exec(loaded), .. }) = Event::parse(&bytes) else { panic!() };
        let texts = [&loaded.path, &loaded.cwd, &loaded.argv, &loaded.environment];
        assert_eq!(texts.map(|text| text.bytes.as_slice()), [&b"/a"[..], b"/", b"x\0", b"A=1\0"]);
        assert!(loaded.script.is_empty());
        // A refusal has a name behind it.
        assert_eq!(Event::parse(&event(3, [0; 5], b"")), None);
        assert!(Event::parse(&event(3, [0; 5], &[0; NAME_SIZE])).is_some());
        assert_eq!(Event::parse(&event(4, [0; 5], b"")), None);
        assert!(Event::parse(&event(2, [0; 5], b"")).is_some());
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_and_a_longer_whole_is_a_cut() {
        assert_eq!(Event::parse(&event(1, [u32::MAX, 0, 0, 0, 0], b"/a")), None);
        let mut bytes = event(1, [0, 0, 0, 2, 0], b"x\0");
        bytes[128] = 2;
        let argv = |bytes: &[u8]| match Event::parse(bytes).unwrap().kind {
            EventKind::Exec(loaded) => loaded.argv,
            _ => panic!(),
        };
        assert!(!argv(&bytes).partial);
        bytes[128] = 3;
        assert!(argv(&bytes).partial);
    }
}
