use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn pool(
    quorum: u32,
    hysteresis: u32,
    sorry: Option<SorryServer>,
    weights: &[(char, u32)],
) -> Pool<char> {
    let mut pool = Pool::new(PoolConfig {
        quorum,
        hysteresis,
        sorry,
    });
    for (server, weight) in weights {
        let config = MemberConfig {
            weight: *weight,
            inhibit: false,
        };
        pool.add_server(*server, config, true).unwrap();
    }
    pool
}

/// One word per change: `+A10` added, `=A4` weight set, `-A` deleted, `S` the sorry server, `A^`/`Av` notified, `G`/`L`.
fn words(changes: &[Change<char>]) -> String {
    let word = |change: &Change<char>| match change {
        Change::Add { server, weight } => format!("+{server}{weight}"),
        Change::SetWeight { server, weight } => format!("={server}{weight}"),
        Change::Delete { server } => format!("-{server}"),
        Change::AddSorry { weight } => format!("+S{weight}"),
        Change::SetSorryWeight { weight } => format!("=S{weight}"),
        Change::DeleteSorry => "-S".to_owned(),
        Change::ServerUp { server } => format!("{server}^"),
        Change::ServerDown { server } => format!("{server}v"),
        Change::QuorumGained { threshold, .. } => format!("G{threshold}"),
        Change::QuorumLost { threshold, .. } => format!("L{threshold}"),
    };
    changes.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn quorum_follows_the_verified_sequences() {
    // quorum, hysteresis, sums of weights with the change that each brings
    type Sequence<'a> = (u32, u32, &'a [(i64, &'a str)]);
    let table: [Sequence<'_>; 5] = [
        (1, 0, &[(1, "G1"), (0, "L1"), (1, "G1"), (5, ""), (0, "L1")]),
        (
            3,
            1,
            &[
                (8, "G4"),
                (4, ""),
                (3, ""),
                (2, ""),
                (1, "L2"),
                (2, ""),
                (3, ""),
                (4, "G4"),
                (3, ""),
            ],
        ),
        (
            10,
            3,
            &[
                (12, ""),
                (20, "G13"),
                (12, ""),
                (10, ""),
                (9, ""),
                (7, ""),
                (6, "L7"),
                (5, ""),
                (8, ""),
                (12, ""),
                (13, "G13"),
                (7, ""),
                (6, "L7"),
                (13, "G13"),
                (2, "L7"),
                (0, ""),
                (13, "G13"),
            ],
        ),
        (
            7,
            2,
            &[
                (0, ""),
                (1, ""),
                (7, ""),
                (8, ""),
                (9, "G9"),
                (8, ""),
                (7, ""),
                (6, ""),
                (5, ""),
                (4, "L5"),
                (5, ""),
                (8, ""),
                (9, "G9"),
            ],
        ),
        (
            2,
            1,
            &[
                (0, ""),
                (1, ""),
                (2, ""),
                (3, "G3"),
                (2, ""),
                (1, ""),
                (0, "L1"),
                (1, ""),
                (2, ""),
                (3, "G3"),
            ],
        ),
    ];
    for (quorum, hysteresis, sums) in table {
        // The configured weight only has to be large enough not to limit the quorum.
        let mut pool = pool(quorum, hysteresis, None, &[('A', 10)]);
        pool.handle_adjustment('A', -10).unwrap();
        pool.start();
        for (step, (sum, wanted)) in sums.iter().enumerate() {
            let changes = pool.handle_adjustment('A', sum - 10).unwrap();
            let quorum_only: Vec<_> = changes
                .into_iter()
                .filter(|c| matches!(c, Change::QuorumGained { .. } | Change::QuorumLost { .. }))
                .collect();
            assert_eq!(
                words(&quorum_only),
                *wanted,
                "{quorum},{hysteresis} step {step}: sum {sum}"
            );
            assert_eq!(pool.sum(), *sum as u64);
        }
    }
}

#[test]
fn table_operations_of_the_10_3_case() {
    let mut pool = pool(10, 3, Some(SorryServer::default()), &[('A', 10), ('B', 2)]);
    assert_eq!(words(&pool.start()), "+A10 +B2 -A -B +S1 L13");
    // weight of A less 10, the changes
    for (adjustment, wanted) in [
        (8, "-S +A18 +B2 G13"),
        (-6, "=A4 -A -B +S1 L7"),
        (-7, ""),
        (-4, ""),
        (0, ""),
        (1, "-S +A11 +B2 G13"),
    ] {
        assert_eq!(
            words(&pool.handle_adjustment('A', adjustment).unwrap()),
            wanted,
            "{adjustment}"
        );
    }
}

#[test]
fn inhibited_servers_and_sorry_server_stay_in_the_table() {
    let mut pool = pool(3, 1, Some(SorryServer { inhibit: true }), &[]);
    for (server, weight) in [('A', 2), ('B', 3)] {
        let config = MemberConfig {
            weight,
            inhibit: true,
        };
        pool.add_server(server, config, false).unwrap();
    }
    assert_eq!(words(&pool.start()), "+A0 +B0 +S1 L4");
    assert_eq!(words(&pool.handle_server_up('A').unwrap()), "A^");
    assert_eq!(
        words(&pool.handle_server_up('B').unwrap()),
        "B^ =S0 =A2 =B3 G4"
    );
    assert_eq!(words(&pool.handle_server_down('A').unwrap()), "=A0 Av");
    assert_eq!(
        words(&pool.handle_server_down('B').unwrap()),
        "=B0 Bv =S1 L2"
    );
    assert_eq!(words(&pool.handle_server_up('A').unwrap()), "A^");
    assert_eq!(
        words(&pool.handle_server_up('B').unwrap()),
        "B^ =S0 =A2 =B3 G4"
    );
    assert_eq!(words(&pool.remove_server('A').unwrap()), "-A Av");
}

#[test]
fn changes_come_in_the_observed_order() {
    let mut pool = pool(2, 0, Some(SorryServer::default()), &[('A', 1), ('B', 1)]);
    assert_eq!(words(&pool.start()), "+A1 +B1 G2");
    assert_eq!(
        words(&pool.handle_server_down('B').unwrap()),
        "-B Bv -A +S1 L2"
    );
    assert_eq!(words(&pool.handle_server_down('B').unwrap()), "");
    assert_eq!(
        words(&pool.handle_server_up('B').unwrap()),
        "B^ -S +A1 +B1 G2"
    );
    assert_eq!(words(&pool.stop()), "-A Av -B Bv L2");
    assert_eq!(words(&pool.stop()), "");
}

#[test]
fn without_sorry_server_the_quorum_changes_no_table() {
    let mut pool = pool(2, 0, None, &[('A', 1), ('B', 1)]);
    pool.handle_server_down('B').unwrap();
    assert_eq!(words(&pool.start()), "+A1");
    assert!(!pool.has_quorum());
    assert_eq!(words(&pool.handle_server_up('B').unwrap()), "+B1 B^ G2");
    assert_eq!(words(&pool.handle_server_down('A').unwrap()), "-A Av L2");
    assert_eq!(words(&pool.handle_server_down('B').unwrap()), "-B Bv");
}

#[test]
fn unneeded_inhibited_sorry_server_begins_with_weight_0() {
    let mut pool = pool(1, 0, Some(SorryServer { inhibit: true }), &[('A', 1)]);
    assert_eq!(words(&pool.start()), "+A1 +S0 G1");
}

#[test]
fn quorum_is_limited_by_configured_weights() {
    let mut limited = pool(9, 9, None, &[('A', 2), ('B', 1)]);
    assert_eq!(words(&limited.start()), "+A2 +B1");
    assert_eq!(limited.threshold(), 5);
    let mut zero = pool(1, 0, None, &[('A', 0)]);
    assert_eq!(words(&zero.start()), "+A0 G0");
    assert_eq!(words(&zero.handle_server_down('A').unwrap()), "-A Av");
    assert!(zero.has_quorum());
}

#[test]
fn operators_weight_outlives_a_failure() {
    let mut pool = pool(1, 0, None, &[('A', 3)]);
    pool.start();
    pool.handle_server_down('A').unwrap();
    assert_eq!(words(&pool.set_weight('A', 7).unwrap()), "");
    assert_eq!(words(&pool.handle_server_up('A').unwrap()), "+A7 A^ G1");
    assert_eq!(
        words(&pool.set_weight('A', u32::MAX).unwrap()),
        format!("=A{}", i32::MAX)
    );
}

#[test]
fn unknown_and_duplicate_servers_are_errors() {
    let mut pool = pool(1, 0, None, &[('A', 1)]);
    let config = MemberConfig {
        weight: 1,
        inhibit: false,
    };
    assert_eq!(
        pool.add_server('A', config, true),
        Err(PoolError::Duplicate)
    );
    assert_eq!(pool.handle_server_up('Z'), Err(PoolError::Unknown));
    assert_eq!(pool.remove_server('Z'), Err(PoolError::Unknown));
}

#[derive(Debug, Clone)]
enum Operation {
    Up(u8),
    Down(u8),
    Weight(u8, u32),
    Adjust(u8, i64),
    Add(u8, u32, bool, bool),
    Remove(u8),
    Start,
    Stop,
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let server = 0u8..5;
    prop_oneof![
        4 => server.clone().prop_map(Operation::Up),
        4 => server.clone().prop_map(Operation::Down),
        2 => (server.clone(), 0u32..6).prop_map(|(s, w)| Operation::Weight(s, w)),
        2 => (server.clone(), -6i64..6).prop_map(|(s, a)| Operation::Adjust(s, a)),
        2 => (server.clone(), 0u32..6, any::<bool>(), any::<bool>())
            .prop_map(|(s, w, inhibit, up)| Operation::Add(s, w, inhibit, up)),
        1 => server.prop_map(Operation::Remove),
        1 => Just(Operation::Start),
        1 => Just(Operation::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// A table that only follows the changes never adds twice, edits or deletes what is not there, and always holds
    /// what the state of the pool asks for.
    #[test]
    fn changes_keep_a_table_in_step(
        quorum in 0u32..12,
        hysteresis in 0u32..6,
        sorry in prop::option::of(any::<bool>()),
        operations in prop::collection::vec(any_operation(), 1..80),
    ) {
        let sorry = sorry.map(|inhibit| SorryServer { inhibit });
        let mut pool = Pool::new(PoolConfig { quorum, hysteresis, sorry });
        let mut table = BTreeMap::new();
        let mut sorry_weight = None;
        let mut held = false;
        for operation in operations {
            let result = match operation {
                Operation::Up(s) => pool.handle_server_up(s),
                Operation::Down(s) => pool.handle_server_down(s),
                Operation::Weight(s, w) => pool.set_weight(s, w),
                Operation::Adjust(s, a) => pool.handle_adjustment(s, a),
                Operation::Add(s, weight, inhibit, up) => pool.add_server(s, MemberConfig { weight, inhibit }, up),
                Operation::Remove(s) => pool.remove_server(s),
                Operation::Start => Ok(pool.start()),
                Operation::Stop => Ok(pool.stop()),
            };
            for change in result.unwrap_or_default() {
                match change {
                    Change::Add { server, weight } => prop_assert_eq!(table.insert(server, weight), None),
                    Change::SetWeight { server, weight } => {
                        prop_assert!(table.insert(server, weight).is_some_and(|old| old != weight));
                    }
                    Change::Delete { server } => prop_assert!(table.remove(&server).is_some()),
                    Change::AddSorry { weight } => prop_assert_eq!(sorry_weight.replace(weight), None),
                    Change::SetSorryWeight { weight } => {
                        prop_assert!(sorry_weight.replace(weight).is_some_and(|old| old != weight));
                    }
                    Change::DeleteSorry => prop_assert!(sorry_weight.take().is_some()),
                    Change::QuorumGained { sum, threshold, .. } => {
                        prop_assert!(!held && sum >= threshold);
                        held = true;
                    }
                    Change::QuorumLost { .. } => held = false,
                    Change::ServerUp { .. } | Change::ServerDown { .. } => {}
                }
            }
            prop_assert_eq!(pool.has_quorum(), held);
            prop_assert_eq!(pool.sorry_weight(), sorry_weight);
            for member in &pool.members {
                let serves = pool.started && member.health.up && !pool.is_sorry();
                let wanted = if serves {
                    Some(member.weight())
                } else {
                    (pool.started && member.config.inhibit).then_some(0)
                };
                prop_assert_eq!(table.get(&member.server).copied(), wanted);
            }
            prop_assert_eq!(table.len(), pool.servers().filter(|(_, weight)| weight.is_some()).count());
        }
    }
}
