//! What the benchmarks run inside a sandbox, and beside one as the baseline.
//!
//! Every figure is printed as one JSON array of nanoseconds (or one number) on standard output; the statistics are made
//! by `test/bench`. CLOCK_MONOTONIC is the same clock inside and outside, since a sandbox has no time namespace.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::time::{ClockId, clock_gettime};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Parser)]
#[command(about = "What the benchmarks run inside a sandbox")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Prints CLOCK_MONOTONIC in nanoseconds, at once.
    Now,
    /// fork+exec+wait of a program, so many times. `{}` in an argument is the number of the time.
    Spawn {
        count: usize,
        program: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Round trips of one byte on one connection; the server echoes.
    RoundTrip { host: String, port: u16, count: usize },
    /// Reads so many bytes from the server; prints the nanoseconds it took.
    Fetch { host: String, port: u16, bytes: u64 },
    /// The server for the two above. Prints "ready" when it listens.
    Serve { address: String },
    /// Starts so many sleeping children, prints "ready", and sleeps for at most 60 s.
    Forks { count: usize },
}

/// First byte of a connection to the server: echo, or send as many bytes as the next eight say.
const ECHO: u8 = b'E';
const SEND: u8 = b'S';

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Now => println!("{}", now()?),
        What::Spawn { count, program, arguments } => println!("{:?}", spawn(count, &program, &arguments)?),
        What::RoundTrip { host, port, count } => println!("{:?}", round_trips(&host, port, count)?),
        What::Fetch { host, port, bytes } => println!("{}", fetch(&host, port, bytes)?),
        What::Serve { address } => serve(&address)?,
        What::Forks { count } => forks(count)?,
    }
    Ok(())
}

fn now() -> Result<i128> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
}

fn spawn(count: usize, program: &str, arguments: &[String]) -> Result<Vec<u128>> {
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let arguments = arguments.iter().map(|argument| argument.replace("{}", &number.to_string()));
        let arguments: Vec<String> = arguments.collect();
        let since = Instant::now();
        let mut command = Command::new(program);
        // Standard output is for the figures.
        command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().context("the program did not start")?;
        times.push(since.elapsed().as_nanos());
        if !status.success() {
            bail!("{program} ended with {status}; a figure for it would mean nothing");
        }
    }
    Ok(times)
}

fn connect(host: &str, port: u16) -> Result<TcpStream> {
    let stream =
        TcpStream::connect((host, port)).with_context(|| format!("no connection to {host}:{port}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

fn round_trips(host: &str, port: u16, count: usize) -> Result<Vec<u128>> {
    let mut stream = connect(host, port)?;
    stream.write_all(&[ECHO])?;
    let mut byte = [0u8; 1];
    let mut times = Vec::with_capacity(count);
    for round in 0..=count {
        let since = Instant::now();
        stream.write_all(b"x")?;
        stream.read_exact(&mut byte)?;
        // The first one waits for the gate to connect: that is not a round trip.
        if round > 0 {
            times.push(since.elapsed().as_nanos());
        }
    }
    Ok(times)
}

fn fetch(host: &str, port: u16, bytes: u64) -> Result<u128> {
    let mut stream = connect(host, port)?;
    stream.write_all(&[SEND])?;
    stream.write_all(&bytes.to_be_bytes())?;
    let mut buffer = vec![0u8; 1 << 18];
    stream.read_exact(&mut buffer[..1])?;
    let since = Instant::now();
    let mut left = bytes - 1;
    while left > 0 {
        match stream.read(&mut buffer)? {
            0 => bail!("the connection ended {left} bytes early"),
            count => left -= count as u64,
        }
    }
    Ok(since.elapsed().as_nanos())
}

fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    println!("ready");
    std::io::stdout().flush()?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            // A client that goes away ends its own connection only.
            let _ = answer(stream);
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0u8; 1];
    stream.read_exact(&mut kind)?;
    if kind[0] == SEND {
        let mut length = [0u8; 8];
        stream.read_exact(&mut length)?;
        let mut left = u64::from_be_bytes(length);
        let block = vec![0u8; 1 << 18];
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            stream.write_all(&block[..part])?;
            left -= part as u64;
        }
        return Ok(());
    }
    let mut buffer = [0u8; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

fn forks(count: usize) -> Result<()> {
    for _ in 0..count {
        // SAFETY: this process has one thread, and the child only sleeps and exits.
        match unsafe { nix::unistd::fork() }? {
            nix::unistd::ForkResult::Child => {
                std::thread::sleep(Duration::from_secs(60));
                // SAFETY: _exit ends the child without running the parent's exit handlers.
                unsafe { nix::libc::_exit(0) };
            }
            nix::unistd::ForkResult::Parent { .. } => {}
        }
    }
    println!("ready");
    std::io::stdout().flush()?;
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}
