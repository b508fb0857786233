//! Reads the memory of a caller that waits in a system call: paths, lists of strings, environments.
//!
//! Another of its threads, or a process that shares the memory, can change all of it at any time: what was decided about
//! is compared with what was loaded.

use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// Remote areas never cross a page, so that a read of one is whole or nothing.
const PAGE: u64 = 4096;
/// `PATH_MAX` of linux/limits.h, the terminating zero included.
const PATH_MAX: usize = 4096;
/// Strings read with one system call (at most `IOV_MAX` = 1,024), and the first bytes of each.
const BATCH: usize = 256;
const FIRST: u64 = 128;
/// Pointers of an array that are read at first.
const POINTERS: u64 = 64;
/// Bytes of one.
const POINTER: u64 = size_of::<u64>() as u64;

/// Strings of a NULL-terminated array.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Strings {
    /// Without their terminating zeros.
    pub items: Vec<Vec<u8>>,
    /// There is more than the limit.
    pub truncated: bool,
}

/// Reads a path. `ENAMETOOLONG` and `EFAULT` as the kernel would give them.
pub fn read_path(tid: i32, address: u64) -> Result<Vec<u8>, Errno> {
    let mut path = Vec::with_capacity(256);
    if read_until(tid, address, &mut path, PATH_MAX, |byte| byte == 0)? {
        Ok(path)
    } else {
        Err(Errno::ENAMETOOLONG)
    }
}

// Appends the bytes before the one that ends them. False: there is none within `limit` bytes.
fn read_until(
    tid: i32,
    mut address: u64,
    into: &mut Vec<u8>,
    limit: usize,
    ends: impl Fn(u8) -> bool,
) -> Result<bool, Errno> {
    let start = into.len();
    let mut buffer = [0u8; PAGE as usize];
    // Most strings are short; a page is read only for the others.
    let mut wish = 2 * FIRST;
    while into.len() - start < limit {
        let room = (limit - (into.len() - start)) as u64;
        let size = wish.min(PAGE - address % PAGE).min(room) as usize;
        wish = PAGE;
        let part = &mut buffer[..size];
        read_exact(tid, address, part)?;
        if let Some(end) = part.iter().position(|&byte| ends(byte)) {
            into.extend_from_slice(&part[..end]);
            return Ok(true);
        }
        into.extend_from_slice(part);
        address = address.checked_add(size as u64).ok_or(Errno::EFAULT)?;
    }
    Ok(false)
}

fn read_exact(tid: i32, address: u64, into: &mut [u8]) -> Result<(), Errno> {
    let size = into.len();
    let remote = [RemoteIoVec { base: address as usize, len: size }];
    let read = process_vm_readv(Pid::from_raw(tid), &mut [IoSliceMut::new(into)], &remote)?;
    if read == size { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Reads the path and the arguments of a call of execve: what [`read_path`] and [`read_strings`] read, in fewer system calls
/// where path and array are short, as most are.
pub fn read_call(tid: i32, path: u64, argv: u64, limit: usize) -> Result<(Vec<u8>, Strings), Errno> {
    let Some((path, pointers)) = read_beginnings(tid, path, argv) else {
        return Ok((read_path(tid, path)?, read_strings(tid, argv, limit)?));
    };
    Ok((path, read_items(tid, &pointers, Strings::default(), limit, |byte| byte == 0)?))
}

// The path, and the pointers before the NULL, if both end within their first bytes.
fn read_beginnings(tid: i32, path: u64, argv: u64) -> Option<(Vec<u8>, Vec<u64>)> {
    let path_size = (2 * FIRST).min(PAGE - path % PAGE) as usize;
    let argv_size = (POINTERS * POINTER).min((PAGE - argv % PAGE) / POINTER * POINTER) as usize;
    if argv == 0 || argv_size == 0 {
        return None;
    }
    let mut buffer = [0u8; (2 * FIRST + POINTERS * POINTER) as usize];
    let remote =
        [(path, path_size), (argv, argv_size)].map(|(base, len)| RemoteIoVec { base: base as usize, len });
    let size = path_size + argv_size;
    let read = process_vm_readv(Pid::from_raw(tid), &mut [IoSliceMut::new(&mut buffer[..size])], &remote);
    if read != Ok(size) {
        return None;
    }
    let (path, array) = buffer[..size].split_at(path_size);
    let path = &path[..path.iter().position(|&byte| byte == 0)?];
    let mut pointers: Vec<u64> = words(array).collect();
    pointers.truncate(pointers.iter().position(|&pointer| pointer == 0)?);
    Some((path.to_vec(), pointers))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(POINTER as usize).map(|word| word.try_into().map_or(0, u64::from_ne_bytes))
}

/// Reads the array at `address` and its strings, at most `limit` bytes of strings with their zeros. A NULL array is
/// an empty one, as execve has it.
pub fn read_strings(tid: i32, address: u64, limit: usize) -> Result<Strings, Errno> {
    read_array(tid, address, limit, |byte| byte == 0)
}

/// Reads the names of an environment (what stands before `=`), sorted, without repetition. At most `limit` bytes of
/// names, one more for each entry; what is beyond that is not hidden, but `truncated`.
pub fn read_environment_names(tid: i32, address: u64, limit: usize) -> Result<Strings, Errno> {
    let mut names = read_array(tid, address, limit, |byte| byte == 0 || byte == b'=')?;
    names.items.sort_unstable();
    names.items.dedup();
    Ok(names)
}

/// The environment of a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Names, as [`read_environment_names`] gives them.
    pub names: Strings,
    /// All of it as it will lie in the memory of the new image, each string with its zero; `None`: it is longer than
    /// the limit.
    pub block: Option<Vec<u8>>,
}

/// Reads an environment once: its names, and all of it if that is not longer than `limit`.
pub fn read_environment(tid: i32, address: u64, limit: usize) -> Result<Environment, Errno> {
    let all = read_strings(tid, address, limit)?;
    if all.truncated {
        return Ok(Environment { names: read_environment_names(tid, address, limit)?, block: None });
    }
    let mut block = Vec::with_capacity(all.items.iter().map(|item| item.len() + 1).sum());
    for item in &all.items {
        block.extend_from_slice(item);
        block.push(0);
    }
    let mut names = all.items;
    for name in &mut names {
        let end = name.iter().position(|&byte| byte == b'=').unwrap_or(name.len());
        name.truncate(end);
    }
    names.sort_unstable();
    names.dedup();
    Ok(Environment { names: Strings { items: names, truncated: false }, block: Some(block) })
}

// The strings of an array, each up to the byte that ends it.
fn read_array(
    tid: i32,
    address: u64,
    limit: usize,
    ends: impl Fn(u8) -> bool + Copy,
) -> Result<Strings, Errno> {
    let mut result = Strings::default();
    if address == 0 {
        return Ok(result);
    }
    // Each string takes at least its end.
    let (pointers, more) = read_pointers(tid, address, limit)?;
    result.truncated = more;
    read_items(tid, &pointers, result, limit, ends)
}

// Appends what the pointers point to.
fn read_items(
    tid: i32,
    pointers: &[u64],
    mut result: Strings,
    limit: usize,
    ends: impl Fn(u8) -> bool + Copy,
) -> Result<Strings, Errno> {
    let mut used = 0;
    let mut at = 0;
    let mut buffer = vec![0u8; BATCH.min(pointers.len()) * FIRST as usize];
    while at < pointers.len() {
        let batch = &pointers[at..pointers.len().min(at + BATCH)];
        let mut read = read_batch(tid, batch, &mut buffer)?;
        for (&pointer, part) in batch.iter().zip(first_parts(batch, &buffer)) {
            // A short read ends with the last whole area; the next batch starts behind it.
            if read < part.len() {
                break;
            }
            read -= part.len();
            at += 1;
            let room = limit.saturating_sub(used);
            let mut string = Vec::new();
            let complete = match part.iter().position(|&byte| ends(byte)) {
                Some(end) => {
                    string.extend_from_slice(&part[..end]);
                    true
                }
                None => {
                    string.extend_from_slice(part);
                    let rest = pointer.checked_add(part.len() as u64).ok_or(Errno::EFAULT)?;
                    read_until(tid, rest, &mut string, room.saturating_sub(part.len()).max(1), ends)?
                }
            };
            used += string.len() + 1;
            if !complete || used > limit {
                string.truncate(room);
                result.items.push(string);
                result.truncated = true;
                return Ok(result);
            }
            result.items.push(string);
        }
    }
    Ok(result)
}

fn first_size(pointer: u64) -> usize {
    FIRST.min(PAGE - pointer % PAGE) as usize
}

fn first_parts<'a>(batch: &'a [u64], mut buffer: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    batch.iter().map(move |&pointer| {
        let (part, rest) = buffer.split_at(first_size(pointer));
        buffer = rest;
        part
    })
}

// Reads the first bytes of each string, one behind the other; gives how many bytes were read.
fn read_batch(tid: i32, batch: &[u64], buffer: &mut [u8]) -> Result<usize, Errno> {
    let remote: Vec<RemoteIoVec> = batch
        .iter()
        .map(|&pointer| RemoteIoVec { base: pointer as usize, len: first_size(pointer) })
        .collect();
    let size: usize = remote.iter().map(|area| area.len).sum();
    process_vm_readv(Pid::from_raw(tid), &mut [IoSliceMut::new(&mut buffer[..size])], &remote)
}

/// Reads a number of 64 bits.
pub fn read_word(tid: i32, address: u64) -> Result<u64, Errno> {
    let mut bytes = [0; 8];
    read_exact(tid, address, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

// The pointers before the NULL, and whether there are more than `limit`.
fn read_pointers(tid: i32, mut address: u64, limit: usize) -> Result<(Vec<u64>, bool), Errno> {
    let mut pointers = Vec::new();
    let mut buffer = [0u8; PAGE as usize];
    let mut wish = POINTERS * POINTER;
    loop {
        let to_page_end = PAGE - address % PAGE;
        // An unaligned array may have a pointer across two pages: that one alone.
        let size = if to_page_end < POINTER { POINTER } else { wish.min(to_page_end / POINTER * POINTER) };
        wish = PAGE;
        let part = &mut buffer[..size as usize];
        read_exact(tid, address, part)?;
        for pointer in words(part) {
            if pointer == 0 {
                return Ok((pointers, false));
            }
            if pointers.len() == limit {
                return Ok((pointers, true));
            }
            pointers.push(pointer);
        }
        address = address.checked_add(size).ok_or(Errno::EFAULT)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    const ARGV: usize = 128 * 1024;

    fn own(strings: &[CString]) -> Vec<u64> {
        strings.iter().map(|text| text.as_ptr() as u64).chain([0]).collect()
    }

    fn me() -> i32 {
        std::process::id() as i32
    }

    #[test]
    fn an_argv_is_read_whole_however_long_its_strings_are() {
        let lengths = [0usize, 1, 127, 128, 129, 4095, 4096, 4097, 20_000];
        let strings: Vec<CString> = lengths.iter().map(|&n| CString::new(vec![b'x'; n]).unwrap()).collect();
        let array = own(&strings);
        let read = read_strings(me(), array.as_ptr() as u64, 128 * 1024).unwrap();
        assert!(!read.truncated);
        assert_eq!(read.items.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    }

    #[test]
    fn a_call_is_read_as_its_path_and_its_arguments_are() {
        let page = PAGE as usize;
        let mut memory = vec![0u8; 3 * page];
        let mut path_at = |before_end: usize, length: usize| {
            memory.fill(0);
            let at = page - memory.as_ptr() as usize % page + page - before_end;
            memory[at..at + length].fill(b'p');
            memory[at..].as_ptr() as u64
        };
        let texts: Vec<CString> = (0..80).map(|n| CString::new("x".repeat(n * 3)).unwrap()).collect();
        // Short and long, up to the end of a page and over it; arrays that end at first and later, and none.
        for (before_end, length) in
            [(page, 0), (page, 9), (10, 9), (9, 9), (3, 200), (page, 255), (page, 256), (page, 4095)]
        {
            let path = path_at(before_end, length);
            for count in [0, 1, 2, 63, 64, 80] {
                let array = own(&texts[..count]);
                let (name, argv) = read_call(me(), path, array.as_ptr() as u64, ARGV).unwrap();
                assert_eq!((name.len(), argv.items.len(), argv.truncated), (length, count, false));
                assert_eq!(
                    (Ok(name), Ok(argv)),
                    (read_path(me(), path), read_strings(me(), array.as_ptr() as u64, ARGV))
                );
            }
            assert_eq!(
                read_call(me(), path, 0, ARGV).map(|(name, argv)| (name.len(), argv)),
                Ok((length, Strings::default()))
            );
        }
        // An array across two pages, its NULL in the second one.
        let mut array = vec![0u64; 3 * page / 8];
        let at = (page - array.as_ptr() as usize % page + page) / 8 - 1;
        array[at] = texts[1].as_ptr() as u64;
        let path = CString::new("/bin/p").unwrap();
        let across = read_call(me(), path.as_ptr() as u64, array[at..].as_ptr() as u64, ARGV).unwrap();
        assert_eq!(across, (b"/bin/p".to_vec(), Strings { items: vec![b"xxx".to_vec()], truncated: false }));
    }

    #[test]
    fn a_call_that_cannot_be_read_or_is_too_long_is_said_to_be() {
        let (good, long) = (CString::new("a").unwrap(), CString::new(vec![b'x'; 4096]).unwrap());
        let good_array = own(std::slice::from_ref(&good));
        let read = |path: u64, argv: u64, limit| read_call(me(), path, argv, limit);
        let (path, argv) = (good.as_ptr() as u64, good_array.as_ptr() as u64);
        assert_eq!(read(8, argv, ARGV), Err(Errno::EFAULT));
        assert_eq!(read(path, 8, ARGV), Err(Errno::EFAULT));
        assert_eq!(read(path, [8u64, 0].as_ptr() as u64, ARGV), Err(Errno::EFAULT));
        assert_eq!(read(long.as_ptr() as u64, argv, ARGV), Err(Errno::ENAMETOOLONG));
        let texts = vec![good.clone(); 50];
        let many = own(&texts);
        let cut = read(path, many.as_ptr() as u64, 80).unwrap().1;
        assert_eq!(cut, read_strings(me(), many.as_ptr() as u64, 80).unwrap());
        assert!(cut.truncated && cut.items.len() < 50);
    }

    #[test]
    fn many_arguments_are_read_and_the_limit_counts_each_zero() {
        let strings: Vec<CString> = (0..1000).map(|n| CString::new(format!("{n:03}")).unwrap()).collect();
        let array = own(&strings);
        let read = |limit| read_strings(me(), array.as_ptr() as u64, limit).unwrap();
        assert_eq!(read(4000).items.len(), 1000);
        assert!(!read(4000).truncated);
        assert!(read(3999).truncated);
        assert!(read(10).truncated);
    }

    #[test]
    fn bad_pointers_are_faults_and_null_is_empty() {
        assert_eq!(read_path(me(), 8), Err(Errno::EFAULT));
        assert_eq!(read_strings(me(), 8, 100), Err(Errno::EFAULT));
        assert_eq!(read_strings(me(), 0, 100), Ok(Strings::default()));
        let good = CString::new("a").unwrap();
        let array = [good.as_ptr() as u64, 8, 0];
        assert_eq!(read_strings(me(), array.as_ptr() as u64, 100), Err(Errno::EFAULT));
    }

    #[test]
    fn a_path_of_4095_bytes_is_read_and_a_longer_one_is_not() {
        let fits = CString::new(vec![b'x'; 4095]).unwrap();
        let long = CString::new(vec![b'x'; 4096]).unwrap();
        assert_eq!(read_path(me(), fits.as_ptr() as u64).map(|path| path.len()), Ok(4095));
        assert_eq!(read_path(me(), long.as_ptr() as u64), Err(Errno::ENAMETOOLONG));
    }

    fn names(strings: &[CString], limit: usize) -> (Vec<String>, bool) {
        let array = own(strings);
        let read = read_environment_names(me(), array.as_ptr() as u64, limit).unwrap();
        (read.items.into_iter().map(|name| String::from_utf8(name).unwrap()).collect(), read.truncated)
    }

    #[test]
    fn environment_names_are_sorted_and_have_no_values() {
        let strings = ["Z=1", "A=secret", "A=2", "EMPTY", "=x"].map(|text| CString::new(text).unwrap());
        assert_eq!(names(&strings, 100), (["", "A", "EMPTY", "Z"].map(str::to_owned).into(), false));
        assert_eq!(read_environment_names(me(), 0, 100), Ok(Strings::default()));
        assert_eq!(read_environment_names(me(), 8, 100), Err(Errno::EFAULT));
    }

    #[test]
    fn an_environment_is_read_whole_up_to_the_limit_and_its_names_beyond() {
        let strings = ["Z=1", "A=secret", "A=2", "EMPTY", "=x"].map(|text| CString::new(text).unwrap());
        let array = own(&strings);
        let read = |limit| read_environment(me(), array.as_ptr() as u64, limit).unwrap();
        let all = read(100);
        assert_eq!(all.block.as_deref(), Some(b"Z=1\0A=secret\0A=2\0EMPTY\0=x\0".as_slice()));
        assert_eq!(all.names, read_environment_names(me(), array.as_ptr() as u64, 100).unwrap());
        let cut = read(22);
        assert_eq!((cut.block, cut.names), (None, all.names));
        let none = read_environment(me(), 0, 100).unwrap();
        assert_eq!(none, Environment { block: Some(Vec::new()), ..Default::default() });
    }

    #[test]
    fn no_environment_name_is_pushed_out_of_sight() {
        let filler = (0..20_000).map(|n| CString::new(format!("A{n:05}=")).unwrap());
        let strings: Vec<CString> = filler.chain([CString::new("LD_PRELOAD=x").unwrap()]).collect();
        let (all, truncated) = names(&strings, 1 << 20);
        assert_eq!((all.len(), truncated), (20_001, false));
        assert!(all.contains(&"LD_PRELOAD".into()));
        // What does not fit is said, also when many entries have one name.
        assert!(names(&strings, 128 * 1024).1);
        let same = vec![CString::new("A=").unwrap(); 1000];
        assert_eq!(names(&same, 2000), (vec!["A".into()], false));
        assert!(names(&same, 1999).1);
    }

    #[test]
    fn a_name_is_read_whole_wherever_it_lies() {
        let long = "N".repeat(5000);
        let page = PAGE as usize;
        let mut memory = vec![0u8; 4 * page];
        // Begins three bytes before the end of a page.
        let at = page - memory.as_ptr() as usize % page + page - 3;
        memory[at..at + 12].copy_from_slice(b"LD_PRELOAD=x");
        let far = CString::new(format!("{long}=x")).unwrap();
        let array = [memory[at..].as_ptr() as u64, far.as_ptr() as u64, 0];
        let read = read_environment_names(me(), array.as_ptr() as u64, 128 * 1024).unwrap();
        assert_eq!(read.items, [b"LD_PRELOAD".to_vec(), long.into_bytes()]);
    }
}
