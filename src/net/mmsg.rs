//! The calls that have no safe form in std, tokio or socket2: datagrams in batches with the address of ours they came to,
//! waiting for them alone, and the limit of descriptors. The only module with unsafe code.
#![allow(unsafe_code, reason = "recvmmsg, sendmmsg, setrlimit and two socket options are called through libc")]

use std::io;
use std::mem::{self, offset_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Datagrams in one call.
pub(super) const BATCH: usize = 64;

/// A received datagram.
pub(super) struct Datagram<'a> {
    /// Its bytes.
    pub(super) bytes: &'a [u8],
    /// Who sent it.
    pub(super) remote: SocketAddr,
    /// The address of ours it was sent to, if the socket tells.
    pub(super) local: Option<IpAddr>,
}

/// Room for one batch of datagrams, allocated once; pages that no datagram ever reached cost nothing.
pub(super) struct Receiver {
    buffers: Vec<u8>,
    slots: Vec<Slot>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// How many the last call brought.
    got: usize,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            buffers: vec![0; BATCH * SIZE],
            slots: vec![Slot::default(); BATCH],
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH],
            headers: vec![empty(); BATCH],
            got: 0,
        }
    }

    /// Takes what has come, without waiting; true if there may be more. Asks for few after few, for many after many,
    /// since each place asked for has to be prepared.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let most = (self.got * 2).clamp(8, BATCH);
        self.got = 0;
        let buffers = self.buffers.chunks_exact_mut(SIZE);
        let places = buffers.zip(&mut self.slots).zip(&mut self.iovecs).zip(&mut self.headers).take(most);
        for (((buffer, slot), iovec), header) in places {
            iovec.iov_base = buffer.as_mut_ptr().cast();
            iovec.iov_len = buffer.len();
            header.msg_len = 0;
            let header = &mut header.msg_hdr;
            header.msg_name = ptr::from_mut(&mut slot.name).cast();
            header.msg_namelen = size_of::<Name>() as libc::socklen_t;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            header.msg_control = ptr::from_mut(&mut slot.control).cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
        // SAFETY: the first `most` headers point to buffers, names and controls of `self`, which outlive the call, with
        // their true sizes; nothing else refers to them until it returns.
        let got = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                most as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        self.got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        Ok(self.got == most)
    }

    /// How many the last call brought.
    pub(super) fn len(&self) -> usize {
        self.got
    }

    /// One datagram of the last call; `None` also for one that is no IP datagram.
    pub(super) fn get(&self, at: usize) -> Option<Datagram<'_>> {
        let header = self.headers.get(..self.got)?.get(at)?;
        let buffer = self.buffers.get(at * SIZE..(at + 1) * SIZE)?;
        let slot = self.slots.get(at)?;
        // A size_t or, with musl, an u32.
        let filled: usize = header.msg_hdr.msg_controllen as _;
        Some(Datagram {
            bytes: buffer.get(..header.msg_len as usize)?,
            remote: slot.name.read()?,
            local: slot.control.read(filled),
        })
    }
}

/// A datagram to send.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    /// Its bytes.
    pub(super) bytes: &'a [u8],
    /// To whom, unless the socket is connected.
    pub(super) to: Option<SocketAddr>,
    /// The address of ours it leaves from, unless the socket is bound to one.
    pub(super) from: Option<IpAddr>,
}

/// Room for one batch to send, allocated once.
pub(super) struct Sender {
    slots: Vec<Slot>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Sender {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![Slot::default(); BATCH],
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH],
            headers: vec![empty(); BATCH],
        }
    }

    /// Sends up to [`BATCH`] of these without waiting and says how many went out; an error is the first one's.
    pub(super) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let mut count = 0;
        let places = self.slots.iter_mut().zip(&mut self.iovecs).zip(&mut self.headers);
        for (message, ((slot, iovec), header)) in messages.zip(places) {
            // sendmmsg only reads what iov_base points to.
            iovec.iov_base = message.bytes.as_ptr().cast_mut().cast();
            iovec.iov_len = message.bytes.len();
            let header = &mut header.msg_hdr;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            header.msg_namelen = message.to.map_or(0, |to| slot.name.write(to)) as libc::socklen_t;
            header.msg_name = if message.to.is_some() { ptr::from_mut(&mut slot.name).cast() } else { ptr::null_mut() };
            header.msg_controllen = message.from.map_or(0, |from| slot.control.write(from)) as _;
            header.msg_control =
                if message.from.is_some() { ptr::from_mut(&mut slot.control).cast() } else { ptr::null_mut() };
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: the first `count` headers point to names and controls of `self` and to bytes that live for 'a, which
        // is longer than the call, all with their true sizes.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Makes a socket tell with each datagram which address of ours it was sent to.
pub(super) fn tell_local(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    let (level, option) =
        if ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    let on: libc::c_int = 1;
    // SAFETY: the value is a c_int that lives over the call, and the length is its size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for datagrams on a socket, and not for room to send: each sent datagram would wake its worker once more.
pub(super) fn readable(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the UdpSocket owns its descriptor, and moves into the AsyncFd: it stays open, and the same, until that is
    // dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// Raises this process's limit of open descriptors to what the system allows it, and says how many that is.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        // SAFETY: `raised` is a valid limit that lives over the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
            limit = raised;
        }
    }
    Ok(limit.rlim_cur)
}

/// An address and a control message, as the kernel wants them.
#[derive(Clone, Copy, Default)]
struct Slot {
    name: Name,
    control: Control,
}

/// Room for a sockaddr_in or a sockaddr_in6, aligned for both. Only ever read and written as bytes.
#[derive(Clone, Copy, Default)]
#[repr(C, align(8))]
struct Name([u8; 32]);

impl Name {
    /// The address in it.
    fn read(&self) -> Option<SocketAddr> {
        let bytes = |at: usize| self.0.get(at..);
        let port = |at| Some(u16::from_be_bytes(*bytes(at)?.first_chunk()?));
        let number = |at| Some(u32::from_ne_bytes(*bytes(at)?.first_chunk()?));
        let family = libc::sa_family_t::from_ne_bytes(*bytes(FAMILY)?.first_chunk()?);
        match i32::from(family) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(*bytes(offset_of!(libc::sockaddr_in, sin_addr))?.first_chunk::<4>()?);
                Some(SocketAddrV4::new(ip, port(offset_of!(libc::sockaddr_in, sin_port))?).into())
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(*bytes(offset_of!(libc::sockaddr_in6, sin6_addr))?.first_chunk::<16>()?);
                let scope = number(offset_of!(libc::sockaddr_in6, sin6_scope_id))?;
                Some(SocketAddrV6::new(ip, port(offset_of!(libc::sockaddr_in6, sin6_port))?, 0, scope).into())
            }
            _ => None,
        }
    }

    /// Puts an address into it; its length.
    fn write(&mut self, address: SocketAddr) -> usize {
        self.0 = [0; 32];
        let mut put = |at, bytes: &[u8]| put(&mut self.0, at, bytes);
        match address {
            SocketAddr::V4(v4) => {
                put(FAMILY, &(libc::AF_INET as libc::sa_family_t).to_ne_bytes());
                put(offset_of!(libc::sockaddr_in, sin_port), &v4.port().to_be_bytes());
                put(offset_of!(libc::sockaddr_in, sin_addr), &v4.ip().octets());
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                put(FAMILY, &(libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
                put(offset_of!(libc::sockaddr_in6, sin6_port), &v6.port().to_be_bytes());
                put(offset_of!(libc::sockaddr_in6, sin6_addr), &v6.ip().octets());
                put(offset_of!(libc::sockaddr_in6, sin6_scope_id), &v6.scope_id().to_ne_bytes());
                size_of::<libc::sockaddr_in6>()
            }
        }
    }
}

/// Room for one control message with an in_pktinfo or an in6_pktinfo. Only ever read and written as bytes.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 48]);

impl Default for Control {
    fn default() -> Self {
        Self([0; 48])
    }
}

impl Control {
    /// The local address in it, of which the kernel has filled this many bytes.
    fn read(&self, filled: usize) -> Option<IpAddr> {
        let bytes = |at: usize| self.0.get(..filled)?.get(at..);
        let number = |at| Some(i32::from_ne_bytes(*bytes(at)?.first_chunk()?));
        let kind = (number(offset_of!(libc::cmsghdr, cmsg_level))?, number(offset_of!(libc::cmsghdr, cmsg_type))?);
        match kind {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let at = DATA + offset_of!(libc::in_pktinfo, ipi_spec_dst);
                Some(IpAddr::from(*bytes(at)?.first_chunk::<4>()?))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let at = DATA + offset_of!(libc::in6_pktinfo, ipi6_addr);
                Some(IpAddr::from(*bytes(at)?.first_chunk::<16>()?))
            }
            _ => None,
        }
    }

    /// Puts a source address into it; the length of the control message with its padding.
    fn write(&mut self, from: IpAddr) -> usize {
        self.0 = [0; 48];
        let mut put = |at, bytes: &[u8]| put(&mut self.0, at, bytes);
        let (level, kind, size) = match from {
            IpAddr::V4(ip) => {
                put(DATA + offset_of!(libc::in_pktinfo, ipi_spec_dst), &ip.octets());
                (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of::<libc::in_pktinfo>())
            }
            IpAddr::V6(ip) => {
                put(DATA + offset_of!(libc::in6_pktinfo, ipi6_addr), &ip.octets());
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, size_of::<libc::in6_pktinfo>())
            }
        };
        // cmsg_len is a size_t or, with musl, an u32 with padding on the side where it does not matter.
        let length = DATA + size;
        put(offset_of!(libc::cmsghdr, cmsg_len), &length.to_ne_bytes());
        put(offset_of!(libc::cmsghdr, cmsg_level), &level.to_ne_bytes());
        put(offset_of!(libc::cmsghdr, cmsg_type), &kind.to_ne_bytes());
        length.next_multiple_of(align_of::<libc::cmsghdr>())
    }
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = to.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn empty() -> libc::mmsghdr {
    // SAFETY: null pointers and zero lengths are valid for every field; there may be private padding, so a literal
    // cannot be written.
    unsafe { mem::zeroed() }
}

/// The largest datagram there can be, and more.
const SIZE: usize = 64 << 10;
/// Where the data of a control message begins.
const DATA: usize = size_of::<libc::cmsghdr>().next_multiple_of(align_of::<libc::cmsghdr>());
const FAMILY: usize = offset_of!(libc::sockaddr, sa_family);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn addresses_come_back_as_they_went() {
        let mut name = Name::default();
        for text in ["192.0.2.7:5060", "[2001:db8::7]:65535", "[fe80::1%3]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            name.write(address);
            assert_eq!(name.read(), Some(address));
        }
        let mut control = Control::default();
        for text in ["192.0.2.7", "2001:db8::7"] {
            let ip: IpAddr = text.parse().unwrap();
            let length = control.write(ip);
            assert_eq!(control.read(length), Some(ip));
            assert_eq!(control.read(length - 9), None, "cut short");
        }
        assert_eq!(Control::default().read(0), None);
    }

    /// More than a batch, of all sizes, from one address of ours to another and back.
    fn there_and_back(wildcard: &str, host: IpAddr, other: IpAddr) {
        let server = UdpSocket::bind(wildcard).unwrap();
        tell_local(server.as_fd(), host.is_ipv6()).unwrap();
        let server_at = SocketAddr::new(other, server.local_addr().unwrap().port());
        let client = UdpSocket::bind(SocketAddr::new(host, 0)).unwrap();
        let payloads: Vec<Vec<u8>> = (0..90).map(|n| vec![n; usize::from(n) * 7]).chain([vec![1; 65_000]]).collect();
        let outgoing = |to| move |bytes| Outgoing { bytes, to: Some(to), from: None };
        let (mut sender, mut receiver) = (Sender::new(), Receiver::new());
        let mut rest = payloads.as_slice();
        while !rest.is_empty() {
            let messages = rest.iter().map(Vec::as_slice).map(outgoing(server_at));
            let sent = sender.send(client.as_fd(), messages).unwrap();
            rest = &rest[sent..];
        }
        let mut seen = Vec::new();
        while seen.len() < payloads.len() {
            receiver.receive(server.as_fd()).unwrap();
            for at in 0..receiver.len() {
                let datagram = receiver.get(at).unwrap();
                assert_eq!(datagram.remote, client.local_addr().unwrap());
                assert_eq!(datagram.local, Some(other));
                seen.push(datagram.bytes.to_vec());
            }
            assert!(receiver.get(receiver.len()).is_none());
        }
        assert_eq!(seen, payloads);
        let none = receiver.receive(server.as_fd()).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);

        // The answer leaves from the address that was asked, though the socket is bound to all.
        let answer = Outgoing { bytes: b"answer", to: client.local_addr().ok(), from: Some(other) };
        assert_eq!(sender.send(server.as_fd(), [answer].into_iter()).unwrap(), 1);
        let mut buffer = [0; 9];
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"answer"[..], server_at));
    }

    #[test]
    fn batches_keep_both_addresses() {
        there_and_back("0.0.0.0:0", [127, 0, 0, 1].into(), [127, 0, 0, 9].into());
        if UdpSocket::bind("[::1]:0").is_ok() {
            there_and_back("[::]:0", Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        }
    }
}
