//! What balancers see of payloads, and what they change in them.

use super::*;
use crate::balancer::{Edit, Replacement};
use crate::rewrite::sequence::Shift;

/// Sees payloads, and gives each reply a longer text.
#[derive(Default)]
struct Editor {
    seen: Vec<Vec<u8>>,
    shift: Shift,
    edits: Vec<(usize, Edit)>,
}

impl Balancer for Editor {
    fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        for (index, packet) in packets.iter().enumerate() {
            let payload = packets.payload(index);
            self.seen.push(payload.to_vec());
            let (sent, received) = match packet.direction {
                Direction::Inbound => (Shift::default(), self.shift),
                Direction::Outbound => (self.shift, Shift::default()),
            };
            let mut replacement = None;
            if payload.starts_with(b"hello") {
                replacement = Some(Replacement {
                    at: 0,
                    len: 5,
                    text: b"good evening".to_vec(),
                });
                self.shift.record(SEQUENCE, 7);
            }
            let edit = Edit {
                sent,
                received,
                replacement,
            };
            self.edits.push((index, edit));
            verdicts.push(match packet.direction {
                Direction::Inbound => nat(11, 8080),
                Direction::Outbound => un_nat(),
            });
        }
    }

    fn poll_edit(&mut self) -> Option<(usize, Edit)> {
        (!self.edits.is_empty()).then(|| self.edits.remove(0))
    }
}

impl Editor {
    fn run(&mut self, bench: &mut Bench, port: PortId, frame: Frame) -> Vec<u8> {
        bench.output.clear();
        let mut frames = vec![frame];
        bench.engine.process(
            bench.now,
            &bench.view,
            port,
            &mut frames,
            self,
            &mut bench.output,
        );
        let (_, frame) = bench.output.transmit.pop().unwrap();
        assert_checksums(&frame.bytes()[14..]);
        frame.bytes().to_vec()
    }
}

#[test]
fn payloads_are_seen_changed_and_followed_by_numbers() {
    let mut bench = Bench::new();
    let mut editor = Editor::default();
    let sent = editor.run(&mut bench, INSIDE, reply(11, 64, b"hello client"));
    assert_eq!(editor.seen, [b"hello client"]);
    assert_eq!(&sent[54..], b"good evening client");
    assert_eq!(
        TcpPacket::new(&sent[34..]).unwrap().get_sequence(),
        SEQUENCE
    );
    // Sent again it gets the same text and the same number.
    let again = editor.run(&mut bench, INSIDE, reply(11, 64, b"hello client"));
    assert_eq!(again[34..], sent[34..]);
    // What follows has moved.
    let mut next = reply(11, 64, b"more");
    let number = SEQUENCE + 12;
    next.bytes_mut()[38..42].copy_from_slice(&number.to_be_bytes());
    fix_transport(&mut next);
    let sent = editor.run(&mut bench, INSIDE, next);
    assert_eq!(
        TcpPacket::new(&sent[34..]).unwrap().get_sequence(),
        number + 7
    );
    // And what is acknowledged moves back.
    let mut ack = request(64, b"");
    ack.bytes_mut()[42..46].copy_from_slice(&(number + 7).to_be_bytes());
    ack.bytes_mut()[47] = 0x10;
    fix_transport(&mut ack);
    let sent = editor.run(&mut bench, OUTSIDE, ack);
    assert_eq!(
        TcpPacket::new(&sent[34..]).unwrap().get_acknowledgement(),
        number
    );
    assert_eq!(bench.events(Event::Edited), 4);
}

fn fix_transport(frame: &mut Frame) {
    let bytes = frame.bytes_mut();
    let packet = Ipv4Packet::new(&bytes[14..]).unwrap();
    let sum = pnet_packet::tcp::ipv4_checksum(
        &TcpPacket::new(&bytes[34..]).unwrap(),
        &packet.get_source(),
        &packet.get_destination(),
    );
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
}

/// The sequence number that [`reply`] builds.
const SEQUENCE: u32 = 7;
