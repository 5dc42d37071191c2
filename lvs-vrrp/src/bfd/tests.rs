use super::*;
use proptest::prelude::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn config(discriminator: u32) -> BfdConfig {
    BfdConfig {
        min_tx: ms(50),
        min_rx: ms(50),
        detect_mult: 3,
        ..BfdConfig::new(discriminator)
    }
}

/// Two sessions and a wire that can be cut.
struct Pair {
    sessions: [BfdSession; 2],
    now: Instant,
    start: Instant,
    cut: bool,
    sent: [Vec<(Duration, BfdRepr)>; 2],
}

impl Pair {
    fn new(a: BfdConfig, b: BfdConfig) -> Self {
        let now = Instant::now();
        Self {
            sessions: [BfdSession::new(now, a, 1), BfdSession::new(now, b, 2)],
            now,
            start: now,
            cut: false,
            sent: [Vec::new(), Vec::new()],
        }
    }

    fn up() -> Self {
        let mut pair = Self::new(config(1), config(2));
        pair.sleep(ms(3000));
        assert_eq!(pair.states(), [BfdState::Up, BfdState::Up]);
        pair.sent = [Vec::new(), Vec::new()];
        pair
    }

    fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            for at in 0..2 {
                while let Some(packet) = self.sessions[at].poll_transmit() {
                    quiet = false;
                    let repr = BfdRepr::parse(&packet).unwrap();
                    self.sent[at].push((self.now - self.start, repr));
                    if !self.cut {
                        let heard =
                            self.sessions[1 - at].handle_packet(self.now, Some(255), &packet);
                        assert!(matches!(heard, Ok(()) | Err(BfdError::AdminDown)));
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn sleep(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.exchange();
        loop {
            let due = self
                .sessions
                .iter()
                .filter_map(BfdSession::poll_timeout)
                .min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.now = due.max(self.now);
            for session in &mut self.sessions {
                session.handle_timeout(self.now);
                assert!(session.poll_timeout().is_none_or(|next| next > self.now));
            }
            self.exchange();
        }
        self.now = end;
    }

    fn states(&self) -> [BfdState; 2] {
        [self.sessions[0].state(), self.sessions[1].state()]
    }
}

#[test]
fn two_sessions_come_up_and_go_to_their_fast_pace() {
    let mut pair = Pair::new(config(1), config(2));
    pair.sleep(ms(3000));
    let states: Vec<_> = std::iter::from_fn(|| pair.sessions[0].poll_event())
        .map(|event| event.to)
        .collect();
    assert!(matches!(
        states[..],
        [BfdState::Init, BfdState::Up] | [BfdState::Up]
    ));
    assert_eq!(pair.sessions[0].detection_time(), Some(ms(150)));
    pair.sent = [Vec::new(), Vec::new()];
    pair.sleep(ms(1000));
    for sent in &pair.sent {
        let gaps: Vec<_> = sent.windows(2).map(|two| two[1].0 - two[0].0).collect();
        assert!(
            gaps.iter().all(|gap| (ms(37)..=ms(50)).contains(gap)),
            "{gaps:?}"
        );
        let different: std::collections::BTreeSet<_> = gaps.iter().collect();
        assert!(different.len() > 5, "jittered");
        assert!(sent.iter().all(|(_, repr)| !repr.poll), "nothing to settle");
    }
}

#[test]
fn a_silent_neighbour_is_down_after_the_detection_time() {
    let mut pair = Pair::up();
    while pair.sessions[0].poll_event().is_some() {}
    pair.cut = true;
    pair.sleep(ms(90));
    assert_eq!(pair.states(), [BfdState::Up, BfdState::Up]);
    pair.sleep(ms(70));
    assert_eq!(pair.states(), [BfdState::Down, BfdState::Down]);
    let event = pair.sessions[0].poll_event().unwrap();
    assert_eq!(event.diagnostic, Diagnostic::DetectionTimeExpired);
    pair.sent = [Vec::new(), Vec::new()];
    pair.sleep(ms(4000));
    assert!(
        pair.sent[0].len() <= 6,
        "slowly while down: {}",
        pair.sent[0].len()
    );
    pair.cut = false;
    pair.sleep(ms(2500));
    assert_eq!(pair.states(), [BfdState::Up, BfdState::Up]);
}

#[test]
fn an_operator_takes_a_session_down_and_the_neighbour_knows() {
    let mut pair = Pair::up();
    pair.sessions[0].set_admin_down(pair.now, true);
    pair.sleep(ms(60));
    assert_eq!(pair.states(), [BfdState::AdminDown, BfdState::Down]);
    pair.sleep(ms(3000));
    assert_eq!(pair.states(), [BfdState::AdminDown, BfdState::Down]);
    pair.sessions[0].set_admin_down(pair.now, false);
    pair.sleep(ms(3000));
    assert_eq!(pair.states(), [BfdState::Up, BfdState::Up]);
}

#[test]
fn a_slower_pace_is_agreed_on_before_it_is_used() {
    let mut pair = Pair::up();
    let slow = BfdConfig {
        min_tx: ms(400),
        ..config(1)
    };
    pair.sessions[0].reconfigure(pair.now, slow);
    pair.sleep(ms(2000));
    assert_eq!(
        pair.states(),
        [BfdState::Up, BfdState::Up],
        "nobody took it for silence"
    );
    assert!(pair.sent[0].iter().any(|(_, repr)| repr.poll));
    assert!(pair.sent[1].iter().any(|(_, repr)| repr.is_final));
    assert_eq!(pair.sessions[1].detection_time(), Some(ms(1200)));
    let late: Vec<_> = pair.sent[0]
        .iter()
        .map(|(at, _)| *at)
        .collect::<Vec<_>>()
        .windows(2)
        .map(|two| two[1] - two[0])
        .collect();
    assert!(*late.last().unwrap() >= ms(300));
}

#[test]
fn a_passive_session_waits_to_be_spoken_to() {
    let passive = BfdConfig {
        passive: true,
        ..config(2)
    };
    let mut pair = Pair::new(
        passive,
        BfdConfig {
            discriminator: 1,
            ..passive
        },
    );
    pair.sleep(ms(5000));
    assert!(pair.sent.iter().all(Vec::is_empty));
    let mut pair = Pair::new(config(1), passive);
    pair.sleep(ms(3000));
    assert_eq!(pair.states(), [BfdState::Up, BfdState::Up]);
}

#[test]
fn a_neighbour_that_wants_no_packets_gets_none() {
    let mut pair = Pair::up();
    pair.sessions[1].reconfigure(
        pair.now,
        BfdConfig {
            min_rx: ms(0),
            ..config(2)
        },
    );
    pair.sleep(ms(200));
    pair.sent = [Vec::new(), Vec::new()];
    pair.sleep(ms(100));
    assert!(
        pair.sent[0].iter().all(|(_, repr)| repr.is_final),
        "but answers"
    );
}

#[test]
fn packets_that_must_be_discarded_are_counted_and_change_nothing() {
    let now = Instant::now();
    let mut session = BfdSession::new(now, config(1), 1);
    let good = BfdRepr {
        diagnostic: Diagnostic::None,
        state: BfdState::Down,
        poll: false,
        is_final: false,
        demand: false,
        detect_mult: 3,
        my_discriminator: 9,
        your_discriminator: 0,
        desired_min_tx: ms(50),
        required_min_rx: ms(50),
    };
    let bytes = good.packet();
    let with = |at: usize, value: u8| {
        let mut bytes = bytes;
        bytes[at] = value;
        bytes
    };
    let cases = [
        (with(0, 0x40), BfdError::Version(2)),
        (with(3, 23), BfdError::Length(23)),
        (with(3, 25), BfdError::Length(25)),
        (with(2, 0), BfdError::DetectMult),
        (with(1, 0x41), BfdError::Multipoint),
        (with(1, 0x44), BfdError::Authenticated),
        (with(7, 0), BfdError::Discriminator),
        (with(1, 0xc0), BfdError::Discriminator),
        (with(11, 5), BfdError::UnknownSession),
    ];
    let count = cases.len() as u64;
    for (packet, error) in cases {
        assert_eq!(session.handle_packet(now, Some(255), &packet), Err(error));
    }
    assert_eq!(
        session.handle_packet(now, Some(254), &bytes),
        Err(BfdError::Ttl(254))
    );
    for end in 0..BfdRepr::LEN {
        assert!(
            session
                .handle_packet(now, Some(255), &bytes[..end])
                .is_err()
        );
    }
    assert_eq!(session.discarded(), count + 1 + 24);
    assert_eq!(session.state(), BfdState::Down);
    assert_eq!(session.handle_packet(now, Some(255), &bytes), Ok(()));
    assert_eq!(session.state(), BfdState::Init);
}

proptest! {
    #[test]
    fn any_packet_that_is_read_is_written_again(mut bytes in any::<[u8; 24]>()) {
        bytes[0] = bytes[0] & 0x1f | 0x20;
        bytes[3] = 24;
        if let Ok(repr) = BfdRepr::parse(&bytes) {
            prop_assert_eq!(BfdRepr::parse(&repr.packet()), Ok(repr));
        }
    }

    #[test]
    fn a_session_survives_any_neighbour(
        packets in prop::collection::vec((any::<[u8; 24]>(), any::<bool>(), 0..200_u64), 0..60),
    ) {
        let mut now = Instant::now();
        let mut session = BfdSession::new(now, config(1), 7);
        for (mut bytes, tidy, wait) in packets {
            if tidy {
                bytes[0] = 0x20;
                bytes[3] = 24;
                bytes[8..12].copy_from_slice(&1_u32.to_be_bytes());
            }
            let _ = session.handle_packet(now, Some(255), &bytes);
            while session.poll_transmit().is_some() {}
            while session.poll_event().is_some() {}
            now += ms(wait);
            session.handle_timeout(now);
            prop_assert!(session.poll_timeout().is_none_or(|next| next > now));
        }
    }
}
