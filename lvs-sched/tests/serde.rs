//! Configuration types in a readable form.

#![cfg(feature = "serde")]

use lvs_sched::*;

#[test]
fn a_service_is_written_and_read() {
    let key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        vip: [203, 0, 113, 10].into(),
        vport: 80,
    };
    let config = ServiceConfig {
        scheduler: SchedulerKind::MaglevHash,
        flags: SchedulerFlags::PORT,
        ..ServiceConfig::default()
    };
    let server = ServerConfig {
        weight: Weight::new(3).unwrap(),
        ..ServerConfig::default()
    };
    let all = (key, config, server);
    let text = serde_json::to_string(&all).unwrap();
    assert!(text.contains("\"mh\""), "{text}");
    let read: (ServiceKey, ServiceConfig, ServerConfig) = serde_json::from_str(&text).unwrap();
    assert_eq!(read, all);
}

#[test]
fn nonsense_is_refused_and_gaps_take_defaults() {
    assert_eq!(
        serde_json::from_str::<ServerConfig>("{}").unwrap(),
        ServerConfig::default()
    );
    assert!(serde_json::from_str::<Weight>("2147483648").is_err());
    assert!(serde_json::from_str::<SchedulerKind>("\"fastest\"").is_err());
}
