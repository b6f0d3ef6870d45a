//! Clients that send garbage, flood, stall or say nothing; and what may be in a socket's place.

mod attach_common;

use attach_common::{Other, Place, Served, eventually, role, say, wait_for_parent};
use ringtap::attach::{AttachError, Connection, Role};
use ringtap::serve::{ServeError, default_path};
use ringtap::{Config, Host};
use ringtap_abi::control::{Header, MAX_PACKET, PROTOCOL, Part, answer, request, role as roles};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What the other processes do.
#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let (role, socket) = role();
    match role.as_str() {
        "host" | "host with 128 descriptors" => {
            if role != "host" {
                let few = libc::rlimit { rlim_cur: 128, rlim_max: 128 };
                // SAFETY: reads the limits, which are this process's own.
                unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) };
            }
            let host =
                Host::new(&Config { ring_subbufs: 2, ..Config::default() }).expect("buffers can be made");
            let _server = host.serve(socket).expect("it can serve");
            say("serving");
            wait_for_parent();
        }
        "flood" => {
            let raw = greeted(&socket);
            say("flooding");
            loop {
                let _ = send(&raw, Header { kind: request::STATS, cpu: 0, value: 0 }.bytes());
            }
        }
        "crowd" => {
            let mut clients = Vec::new();
            let crowded = loop {
                match Connection::connect(&socket, Role::Reader) {
                    Ok(connection) => clients.push(connection),
                    Err(error) => break error,
                }
            };
            assert!(crowded.is_crowded(), "{crowded}");
            say(format!("{} {crowded}", clients.len()));
            wait_for_parent();
            assert!(clients.iter().all(|client| client.stats(0).is_ok()));
        }
        "flood and listen" => {
            let raw = greeted(&socket);
            let packet = Header { kind: request::WAKE_ALL, cpu: 0, value: 0 };
            say("flooding");
            // Listens as fast as it can, so that its share of each turn is all that holds it back.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    loop {
                        let _ = rustix::net::recv(&raw, &mut [0; 64][..], RecvFlags::empty());
                    }
                });
                loop {
                    let _ = send(&raw, packet.bytes());
                }
            })
        }
        other => panic!("no role {other}"),
    }
}

/// A socket that speaks for itself.
fn raw(path: &Path) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let socket = socket.expect("sockets can be made");
    let address = SocketAddrUnix::new(path).expect("the path is short");
    eventually("the host takes the connection", || rustix::net::connect(&socket, &address).is_ok());
    socket
}

fn send(raw: impl AsFd, packet: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(raw, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// The next packet; `None` when there is none in time or the host has closed.
fn receive(raw: impl AsFd, patience: Duration) -> Option<(Header, String)> {
    let mut packet = vec![0; MAX_PACKET];
    let since = Instant::now();
    loop {
        match rustix::net::recv(&raw, &mut packet[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return None,
            Ok((len, _)) => {
                let (header, body) = Header::split(&packet[..len]).expect("the host sends whole packets");
                return Some((header, String::from_utf8_lossy(body).into_owned()));
            }
            Err(Errno::AGAIN) if since.elapsed() < patience => std::thread::sleep(Duration::from_millis(1)),
            Err(_) if since.elapsed() < patience => {}
            Err(_) => return None,
        }
    }
}

/// Whether the host has ended the connection.
fn is_closed(raw: impl AsFd) -> bool {
    !matches!(rustix::net::recv(raw, &mut [0; 64][..], RecvFlags::DONTWAIT), Err(Errno::AGAIN) | Ok((1.., _)))
}

fn hello(version: u32, role: u64) -> Header {
    Header { kind: request::HELLO, cpu: version, value: role }
}

fn greeted(path: &Path) -> OwnedFd {
    let raw = raw(path);
    send(&raw, hello(PROTOCOL, roles::READER).bytes()).expect("there is room");
    let (header, _) = receive(&raw, Duration::from_secs(5)).expect("it answers");
    assert_eq!(header.kind, answer::OK);
    raw
}

/// The fastest of some attaches: other tests use the processors too.
fn time_to_attach(path: &Path) -> Duration {
    let attach = |_| {
        let since = Instant::now();
        ringtap::attach::writer(path).expect("it can attach");
        since.elapsed()
    };
    (0..10).map(attach).min().expect("there are ten")
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("it is below a usize")
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

#[test]
fn what_is_no_request_gets_a_sentence_and_ends_its_connection() {
    let served = Served::new();
    let long = vec![0; MAX_PACKET + 1];
    let stats = Header { kind: request::STATS, cpu: 0, value: 0 };
    let first = [
        (hello(PROTOCOL, 1).bytes()[..15].to_vec(), Errno::PROTO, "too short or too long"),
        (long.clone(), Errno::PROTO, "too short or too long"),
        (stats.bytes().to_vec(), Errno::PROTO, "no HELLO"),
        (
            hello(PROTOCOL + 1, 1).bytes().to_vec(),
            Errno::PROTONOSUPPORT,
            "speaks version 4 and this host version 3",
        ),
        (hello(PROTOCOL, 3).bytes().to_vec(), Errno::PROTO, "3 is no role"),
    ];
    for (packet, errno, said) in first {
        let raw = raw(&served.socket());
        assert_refused(&raw, &packet, errno, said);
        eventually("the host closes the connection", || is_closed(&raw));
    }
    let raw = greeted(&served.socket());
    assert_refused(&raw, &long, Errno::PROTO, "too short or too long");
    eventually("the host closes the connection", || is_closed(&raw));
}

#[test]
fn requests_that_are_refused_leave_the_connection_open() {
    let served = Served::new();
    let raw = greeted(&served.socket());
    let header = |kind, cpu, value| Header { kind, cpu, value }.bytes().to_vec();
    assert_refused(&raw, &header(99, 0, 0), Errno::NOSYS, "request 99 is unknown");
    assert_refused(&raw, &header(request::GET_READER, 0, 0), Errno::PERM, "claim it first");
    assert_refused(&raw, &header(request::GET_BUFFER, 60_000, 0), Errno::NODEV, "no buffer for CPU 60000");
    assert_refused(&raw, &header(request::GET_BUFFER, 1 << 20, 0), Errno::NOENT, "no instance 16");
    assert_refused(&raw, &header(request::GET_SWITCHBOARD, 0, 0), Errno::PERM, "attach as a writer");
    assert_refused(&raw, &header(request::ARM, 0, u64::MAX), Errno::INVAL, "use 0 to 100");
    assert_refused(&raw, hello(PROTOCOL, 1).bytes(), Errno::INVAL, "said HELLO already");
    assert_refused(
        &raw,
        &[header(request::REGISTER, 0, 0), vec![255; 9]].concat(),
        Errno::INVAL,
        "declares no event",
    );
    send(&raw, &header(request::STATS, 0, 0)).expect("it is open");
    assert_eq!(receive(&raw, Duration::from_secs(5)).expect("it answers").0.kind, answer::OK);
}

fn assert_refused(raw: &OwnedFd, packet: &[u8], errno: Errno, said: &str) {
    send(raw, packet).expect("there is room");
    let (header, sentence) = receive(raw, Duration::from_secs(5)).expect("it answers");
    assert_eq!((header.kind, header.value), (answer::ERROR, u64::from(errno.raw_os_error().cast_unsigned())));
    assert!(sentence.contains(said), "{sentence}");
}

#[test]
fn garbage_harms_nobody() {
    const ROUNDS: usize = 2000;
    let seed = std::env::var("RINGTAP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4711);
    println!("seed {seed}: set RINGTAP_SEED to try another");
    let mut random = Random(seed);
    let served = Served::new();
    for _ in 0..ROUNDS {
        // Half of them get past the greeting.
        let raw = if random.below(2) == 0 { raw(&served.socket()) } else { greeted(&served.socket()) };
        for _ in 0..random.below(8) {
            let len = random.below(64);
            let mut packet = random.bytes(len);
            // Half of them are known requests with random numbers.
            if len >= 4 && random.below(2) == 0 {
                packet[..4].copy_from_slice(&[u8::try_from(random.below(40)).expect("small"), 0, 0, 0]);
            }
            let _ = send(&raw, &packet);
        }
    }
    assert!(time_to_attach(&served.socket()) < Duration::from_millis(5));
    served.host.set_recording(true);
    served.host.reset().expect("garbage scribbles on no memory");
    served.host.writer().write(b"it").expect("the rings are whole");
    assert_eq!(served.written(), 1);
    let fresh = Host::new(&Config { ring_subbufs: 2, ..Config::default() }).expect("buffers can be made");
    assert_eq!(served.host.events(), fresh.events(), "garbage declares no events");
}

#[test]
fn descriptors_sent_to_the_host_are_closed() {
    let served = Served::new();
    let raw = greeted(&served.socket());
    let (sent, watched) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map(|(r, w)| (w, r)).expect("a pipe");
    for _ in 0..10 {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [sent.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let packet = Header { kind: request::WAKE_ALL, cpu: 0, value: 0 };
        rustix::net::sendmsg(&raw, &[IoSlice::new(packet.bytes())], &mut ancillary, SendFlags::NOSIGNAL)
            .expect("room");
        assert_eq!(receive(&raw, Duration::from_secs(5)).expect("it answers").0.kind, answer::OK);
    }
    drop(sent);
    // The pipe ends when nobody holds its other end any more.
    assert_eq!(rustix::io::read(&watched, &mut [0; 1]), Ok(0));
}

#[test]
fn silent_stalled_and_flooding_clients_do_not_keep_others_waiting() {
    let served = Served::new();
    let silent: Vec<OwnedFd> = (0..20).map(|_| raw(&served.socket())).collect();
    let attached = greeted(&served.socket());
    let mut floods = Vec::new();
    for role in ["flood", "flood and listen"] {
        let mut flood = Other::start(role, &served.socket());
        flood.expect("flooding");
        floods.push(flood);
    }
    let since = Instant::now();
    let took = time_to_attach(&served.socket());
    println!("attached in {took:?} beside 20 silent clients and 2 floods");
    assert!(took < Duration::from_millis(5), "{took:?}");
    assert!(silent.iter().all(|raw| !is_closed(raw)), "there is patience for a while");
    floods.into_iter().for_each(Other::kill);
    // Who has said HELLO may be silent for ever.
    eventually("patience ends", || silent.iter().all(is_closed));
    assert!(since.elapsed() > Duration::from_secs(3));
    assert!(!is_closed(&attached));
}

#[test]
fn clients_are_limited_and_make_room_when_they_go() {
    let place = Place::new();
    let mut host = Other::start("host with 128 descriptors", &place.socket());
    host.expect("serving");
    let connect = || Connection::connect(place.socket(), Role::Reader);
    let crowd = || {
        let mut other = Other::start("crowd", &place.socket());
        let heard = other.hear().expect("it says how many it has");
        (other, heard)
    };
    // Three quarters of the descriptors that it may have, and of those a quarter for each process.
    let mut crowds = Vec::new();
    for _ in 0..3 {
        let (other, heard) = crowd();
        let pid = other.pid();
        let share = "24 connections to this host, which is all that one may have: end some first";
        assert_eq!(heard, format!("24 process {pid} has {share}"));
        crowds.push(other);
    }
    let ours = connect().expect("there is room for others");
    let (last, heard) = crowd();
    assert_eq!(heard, "23 this host has 96 clients, which is all it takes: end some first");
    assert!(connect().is_err_and(|error| error.is_crowded()));
    last.finish();
    eventually("there is room again", || connect().is_ok());
    assert!(ours.stats(0).is_ok());
    crowds.into_iter().for_each(Other::finish);
    host.finish();
}

#[test]
fn a_dead_hosts_socket_is_replaced_and_a_living_ones_is_not() {
    let place = Place::new();
    let mut first = Other::start("host", &place.socket());
    first.expect("serving");
    let host = Host::new(&Config { ring_subbufs: 2, ..Config::default() }).expect("buffers can be made");
    assert!(matches!(host.serve(place.socket()), Err(ServeError::InUse { .. })));
    first.kill();
    assert!(place.socket().exists());
    let server = host.serve(place.socket()).expect("the dead one's is replaced");
    let status = rustix::fs::lstat(place.socket()).expect("it is there");
    assert_eq!(Mode::from_raw_mode(status.st_mode), Mode::RUSR | Mode::WUSR);
    let status = rustix::fs::lstat(place.directory()).expect("it is there");
    assert_eq!(Mode::from_raw_mode(status.st_mode), Mode::RWXU);
    // Somebody else's file under our path is not ours to remove.
    std::fs::remove_file(place.socket()).expect("it is ours");
    std::fs::write(place.socket(), "precious").expect("it can be written");
    drop(server);
    assert!(matches!(host.serve(place.socket()), Err(ServeError::NotASocket { .. })));
    assert_eq!(std::fs::read(place.socket()).expect("it is still there"), b"precious");
    std::fs::remove_file(place.socket()).expect("it is ours");
    drop(host.serve(place.socket()).expect("nothing is in the way"));
    assert!(!place.socket().exists());
}

#[test]
fn hosts_that_start_together_do_not_remove_each_others_socket() {
    let place = Place::new();
    for _ in 0..20 {
        let mut dead = Other::start("host", &place.socket());
        dead.expect("serving");
        dead.kill();
        let together = Barrier::new(4);
        let start = || {
            let host = Host::new(&Config { ring_subbufs: 2, ..Config::default() });
            together.wait();
            host.expect("buffers can be made").serve(place.socket())
        };
        let mut servers: Vec<_> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            starting.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(servers.iter().filter(|served| served.is_ok()).count(), 1);
        assert!(servers.iter().all(|served| matches!(served, Ok(_) | Err(ServeError::InUse { .. }))));
        Connection::connect(place.socket(), Role::Reader).expect("the one that serves is there");
        servers.clear();
    }
}

#[test]
fn what_is_in_the_way_is_named() {
    let place = Place::new();
    let host = Host::new(&Config { ring_subbufs: 2, ..Config::default() }).expect("buffers can be made");
    let long = place.directory().join("x".repeat(108));
    assert!(matches!(host.serve(&long), Err(ServeError::PathTooLong { .. })));
    let error = host.serve("/proc/nowhere/host.sock").expect_err("no directory can be made there");
    assert_eq!(error.to_string(), "failed to make the directory /proc/nowhere");
    std::fs::create_dir(place.directory()).expect("it can be made");
    let none = Connection::connect(place.socket(), Role::Reader).expect_err("nobody is there");
    let path = place.socket();
    assert_eq!(
        none.to_string(),
        format!("there is no host at {}: start one, or name its socket", path.display())
    );
    let _stream = std::os::unix::net::UnixListener::bind(place.socket()).expect("it can be bound");
    let other =
        Connection::connect(place.socket(), Role::Reader).expect_err("it speaks another kind of socket");
    assert!(matches!(other, AttachError::NotAHost { .. }), "{other}");
    assert!(matches!(host.serve(place.socket()), Err(ServeError::InUse { .. })));
    for name in ["", ".", "../x", "a/b", "a b"] {
        assert!(matches!(default_path(name), Err(ServeError::Name { .. })), "{name:?}");
    }
    assert!(default_path("demo").is_ok_and(|path| path.ends_with("demo.sock")));
}

#[test]
fn a_host_that_answers_nonsense_is_an_error() {
    let place = Place::new();
    std::fs::create_dir(place.directory()).expect("it can be made");
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let socket = socket.expect("sockets can be made");
    rustix::net::bind(&socket, &SocketAddrUnix::new(place.socket()).expect("short"))
        .expect("it can be bound");
    rustix::net::listen(&socket, 8).expect("it can listen");
    let ok = Header { kind: answer::OK, cpu: 0, value: 0 };
    let greeting = [ok.bytes(), &[5, 0, 0, 0, 50, 0, 0, 0], &[3; 16], &[1]].concat();
    let answers = |answers: Vec<Vec<u8>>| {
        let connect = || {
            let connection =
                Connection::connect_within(place.socket(), Role::Writer, Duration::from_secs(1))?;
            connection.writer().map(|_| ())
        };
        std::thread::scope(|scope| {
            let client = scope.spawn(connect);
            let peer = rustix::net::accept(&socket).expect("it connects");
            for answer in answers {
                rustix::net::recv(&peer, &mut [0; 64][..], RecvFlags::empty()).expect("it asks");
                send(&peer, &answer).expect("there is room");
            }
            // Whoever asked for more hears that we are gone.
            let _ = rustix::net::recv(&peer, &mut [0; 64][..], RecvFlags::DONTWAIT);
            drop(peer);
            client.join().expect("no panic").expect_err("that was nonsense").to_string()
        })
    };
    let starts = "the host broke the protocol, ";
    for (nonsense, said) in [
        (vec![vec![1; 3]], "its answer is too short or too long"),
        (vec![vec![0; MAX_PACKET + 1]], "its answer is too short or too long"),
        (vec![vec![7; 32]], "its answer is of an unknown kind"),
        (vec![ok.bytes().to_vec()], "its greeting is too short"),
        (vec![[ok.bytes(), &[0; 24]].concat()], "its CPUs are none, or more than Linux can have"),
        (vec![[ok.bytes(), &[0xff; 8000]].concat()], "its CPUs are none, or more than Linux can have"),
        (vec![greeting.clone(), ok.bytes().to_vec()], "it gave no descriptor"),
    ] {
        let heard = answers(nonsense);
        assert!(heard.strip_prefix(starts).is_some_and(|heard| heard.starts_with(said)), "{heard}");
    }
    assert!(answers(vec![greeting]).starts_with("the host has ended"));
    let error = Header { kind: answer::ERROR, cpu: 0, value: 1 };
    assert_eq!(answers(vec![[error.bytes(), b"no\x1b[2J\nmore"].concat()]), "no [2J more");
}
