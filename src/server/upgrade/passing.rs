//! Listening sockets over a Unix socket (`SCM_RIGHTS`, unix(7)). Each comes with the address it was configured by: port 0 is
//! another port to whoever binds it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// How many there are: the data plane's and the management API's.
pub(super) const SOCKETS: usize = 2;

/// Two addresses, a space, a line's end.
const TEXT_MAX: usize = 256;

/// Sends them.
pub(super) fn send(line: &UnixStream, sockets: &[(SocketAddr, &TcpListener); SOCKETS]) -> io::Result<()> {
    let addresses: Vec<String> = sockets.iter().map(|(address, _)| address.to_string()).collect();
    let text = addresses.join(" ") + "\n";
    let descriptors = sockets.map(|(_, socket)| socket.as_fd());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(line, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == text.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Receives them, each with its address. The descriptors are closed when this process starts another program.
pub(super) fn receive(line: &UnixStream) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
    let mut text = [0; TEXT_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(line, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors.map(TcpListener::from));
        }
    }
    let text = std::str::from_utf8(&text[..received.bytes]).map_err(io::Error::other)?;
    let addresses: Result<Vec<SocketAddr>, _> = text.split_whitespace().map(str::parse).collect();
    let addresses = addresses.map_err(io::Error::other)?;
    if addresses.len() != SOCKETS || sockets.len() != SOCKETS {
        return Err(io::Error::other("not the sockets of a gateway"));
    }
    Ok(addresses.into_iter().zip(sockets).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_passed_takes_the_connections_of_the_one_before() {
        let (here, there) = UnixStream::pair().unwrap();
        let configured: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let before = [(); SOCKETS].map(|()| TcpListener::bind(configured).unwrap());
        let addresses = [before[0].local_addr().unwrap(), before[1].local_addr().unwrap()];
        send(&here, &[(configured, &before[0]), (configured, &before[1])]).unwrap();
        let waiting = std::net::TcpStream::connect(addresses[1]).unwrap();
        drop(before);
        let after = receive(&there).unwrap();
        for ((told, socket), address) in after.iter().zip(addresses) {
            assert_eq!((*told, socket.local_addr().unwrap()), (configured, address));
        }
        let (_, peer) = after[1].1.accept().unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap(), "it came before the handover");
    }

    #[test]
    fn what_brings_no_sockets_is_refused() {
        use std::io::Write;
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"127.0.0.1:0 127.0.0.1:0\n").unwrap();
        assert!(receive(&there).is_err());
    }
}
