//! The limit of a device: receive at one interface, rewrite the link header, send at the other. No engine, no table,
//! no state; what a director takes more than this is what balancing costs.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use director::devices::{Choice, Devices};
use lvs_fwd::device::Device;
use lvs_fwd::frame::{Frame, PacketKind};
use lvs_fwd::netlink::Netlink;
use lvs_fwd::view::{ClaimSet, Endpoint};
use rustix::event::{PollFd, PollFlags, poll};

/// Runs until it is killed. Says "ready" when it forwards between the server and everybody else.
pub(crate) fn run(
    choice: Choice,
    server: Ipv4Addr,
    server_mac: [u8; 6],
    client_mac: [u8; 6],
) -> io::Result<()> {
    let mut claims = ClaimSet::new();
    for protocol in [6, 17] {
        let endpoint = Endpoint {
            protocol,
            addr: server.into(),
            port: 0,
        };
        claims.insert_service(endpoint);
        claims.insert_server(endpoint);
    }
    let mut netlink = Netlink::open().map_err(io::Error::other)?;
    // With its claim: the kernel would forward the frames too.
    let mut devices = Devices::new(choice, 1, SLOTS).map_err(io::Error::other)?;
    let mut rings = Vec::new();
    let mut open = |name: &'static str| -> io::Result<(Box<dyn Device>, [u8; 6])> {
        let link = netlink.link_by_name(name).map_err(io::Error::other)?;
        let mac = link.mac.ok_or(io::ErrorKind::Unsupported)?;
        let port = devices.open(&link, &rings).map_err(io::Error::other)?;
        rings.push(name);
        let device = port.devices.into_iter().next();
        Ok((device.ok_or(io::ErrorKind::Unsupported)?, mac))
    };
    let (mut outside, outside_mac) = open("ext0")?;
    let (mut inside, inside_mac) = open("int0")?;
    devices.replace(&claims).map_err(io::Error::other)?;
    io::stdout().write_all(b"ready\n")?;
    io::stdout().flush()?;

    let inbound = link(server_mac, inside_mac);
    let outbound = link(client_mac, outside_mac);
    let is_inbound = |bytes: &[u8]| bytes.get(30..34) == Some(&server.octets());
    let is_outbound = |bytes: &[u8]| bytes.get(26..30) == Some(&server.octets());
    let mut frames = Vec::new();
    loop {
        let received = pass(
            &mut *outside,
            &mut *inside,
            inbound,
            is_inbound,
            &mut frames,
        )? + pass(
            &mut *inside,
            &mut *outside,
            outbound,
            is_outbound,
            &mut frames,
        )?;
        if received == 0 {
            wait([&*outside, &*inside])?;
        }
    }
}

/// Takes a batch from one device to the other. Returns how many frames there were.
fn pass(
    from: &mut dyn Device,
    to: &mut dyn Device,
    link: [u8; 12],
    is_wanted: impl Fn(&[u8]) -> bool,
    frames: &mut Vec<Frame>,
) -> io::Result<usize> {
    let received = from.receive(frames, BATCH)?;
    for mut frame in frames.drain(..) {
        let bytes = frame.bytes();
        if frame.meta.kind == PacketKind::Host && bytes[12..14] == IPV4 && is_wanted(bytes) {
            frame.bytes_mut()[..12].copy_from_slice(&link);
            to.transmit(frame);
        }
    }
    to.flush()?;
    Ok(received)
}

fn wait(devices: [&dyn Device; 2]) -> io::Result<()> {
    let mut set = Vec::new();
    for device in devices {
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, device.pending() > 0);
        let descriptor = device.descriptor().ok_or(io::ErrorKind::Unsupported)?;
        set.push(PollFd::from_borrowed_fd(descriptor, events));
    }
    poll(&mut set, None)?;
    Ok(())
}

fn link(destination: [u8; 6], source: [u8; 6]) -> [u8; 12] {
    let mut link = [0; 12];
    link[..6].copy_from_slice(&destination);
    link[6..].copy_from_slice(&source);
    link
}

const BATCH: usize = 64;
pub(crate) const SLOTS: u32 = 2048;
const IPV4: [u8; 2] = [8, 0];
