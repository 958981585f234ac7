//! A proxy before an HTTP service that fails on purpose. One request a connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong, and with which inserts; anything else passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every so manieth insert is answered by 500, and does not reach the service.
    InsertFails(u32),
    /// Every insert is answered as a server answers whose disk is full, and does not reach the service.
    DiskFull,
    /// Each of the next inserts loses its connection in the middle of its rows.
    Cut(u32),
    /// Each of the next inserts reaches the service, but its answer gets lost.
    Deaf(u32),
    /// Every piece of every insert takes as long.
    Slow(Duration),
}

/// What ClickHouse says when it can write nothing.
const DISK_FULL: &str = "Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)";

/// A running proxy. It ends with the test's process.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
}

struct Plan {
    fault: Fault,
    inserts: u32,
    failed: u32,
}

/// What is to be done with one request.
enum Act {
    Pass,
    Refuse(&'static str),
    Cut,
    Deafen,
    Delay(Duration),
}

impl Proxy {
    /// Starts one on a free port, before a service.
    pub(crate) fn before(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(Plan { fault: Fault::None, inserts: 0, failed: 0 }));
        let shared = Arc::clone(&plan);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let plan = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // Connections that break are what this is for; both sides learn of it.
                    drop(serve(&client, service, &plan));
                    drop(client.shutdown(Shutdown::Both));
                });
            }
        });
        Self { address, plan }
    }

    /// Changes what goes wrong from here on.
    pub(crate) fn set(&self, fault: Fault) {
        self.plan.lock().unwrap().fault = fault;
    }

    /// How many inserts went wrong.
    pub(crate) fn failed(&self) -> u32 {
        self.plan.lock().unwrap().failed
    }
}

impl Plan {
    fn act(&mut self, head: &str) -> Act {
        if !head.lines().next().is_some_and(|line| line.contains("INSERT")) {
            return Act::Pass;
        }
        self.inserts += 1;
        let act = match self.fault {
            Fault::None => return Act::Pass,
            Fault::Slow(pause) => return Act::Delay(pause),
            Fault::InsertFails(every) if self.inserts.is_multiple_of(every) => Act::Refuse("busy"),
            Fault::DiskFull => Act::Refuse(DISK_FULL),
            Fault::InsertFails(_) | Fault::Cut(0) | Fault::Deaf(0) => return Act::Pass,
            Fault::Cut(left) => {
                self.fault = Fault::Cut(left - 1);
                Act::Cut
            }
            Fault::Deaf(left) => {
                self.fault = Fault::Deaf(left - 1);
                Act::Deafen
            }
        };
        self.failed += 1;
        act
    }
}

fn serve(mut client: &TcpStream, service: SocketAddr, plan: &Mutex<Plan>) -> std::io::Result<()> {
    let (head, rest) = head(&mut client)?;
    let act = plan.lock().unwrap().act(&head);
    if let Act::Refuse(why) = act {
        // The rows are read first, or the sender would hear of a broken connection instead.
        let length = why.len();
        write!(
            client,
            "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{why}"
        )?;
        client.shutdown(Shutdown::Write)?;
        client.set_read_timeout(Some(Duration::from_secs(1)))?;
        return std::io::copy(&mut client, &mut std::io::sink()).map(drop);
    }
    let mut upstream = TcpStream::connect(service)?;
    upstream.write_all(closing(&head).as_bytes())?;
    upstream.write_all(&rest)?;
    let (mut rows, mut onward) = (client.try_clone()?, upstream.try_clone()?);
    let pause = if let Act::Delay(pause) = act { pause } else { Duration::ZERO };
    let cut = matches!(act, Act::Cut);
    let sending = std::thread::spawn(move || -> std::io::Result<()> {
        let mut piece = vec![0; if cut { 512 } else { 16 * 1024 }];
        loop {
            let length = rows.read(&mut piece)?;
            if length == 0 {
                return Ok(());
            }
            std::thread::sleep(pause);
            onward.write_all(&piece[..length])?;
            if cut {
                onward.shutdown(Shutdown::Both)?;
                return rows.shutdown(Shutdown::Both);
            }
        }
    });
    let (answer, rest) = self::head(&mut upstream)?;
    if matches!(act, Act::Deafen) {
        return Ok(());
    }
    client.write_all(closing(&answer).as_bytes())?;
    client.write_all(&rest)?;
    std::io::copy(&mut upstream, &mut client)?;
    client.shutdown(Shutdown::Both)?;
    drop(sending.join());
    Ok(())
}

/// Reads up to the empty line, and what came behind it.
fn head(stream: &mut impl Read) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4_096]);
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..length]);
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
    }
}

/// The same head, of a connection that ends with its answer.
fn closing(head: &str) -> String {
    let kept = head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    kept.map(|line| format!("{line}\r\n")).collect::<String>() + "Connection: close\r\n\r\n"
}
