use std::net::IpAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn allow(destinations: &[&str]) -> OutboundConfig {
    OutboundConfig {
        destinations: destinations.iter().map(|d| (*d).to_owned()).collect(),
        allow_http: true,
        ..OutboundConfig::default()
    }
}

/// A server on loopback that answers every connection with the same bytes; counts connections.
async fn answering(bytes: Vec<u8>) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut request = [0u8; 2048];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&bytes).await;
                if bytes.is_empty() {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (base, count)
}

fn http(head: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").into_bytes();
    out.extend_from_slice(body);
    out
}

#[test]
fn addresses_that_are_not_public_are_refused_in_every_spelling() {
    let rules = AddressRules::new(vec![], HashSet::new(), HashSet::new());
    let refused = [
        "0.0.0.0",
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.8.9.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.9",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "fec0::1",
    ];
    for text in refused {
        assert!(!rules.allows("host", text.parse().unwrap()), "{text}");
    }
    for text in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"] {
        assert!(rules.allows("host", text.parse().unwrap()), "{text}");
    }
}

#[test]
fn a_configured_private_network_opens_itself_and_never_the_metadata_address() {
    let nets = ["10.1.0.0/16", "169.254.0.0/16", "fd00::/8"].map(|n| n.parse().unwrap());
    let hosts = HashSet::from(["scim.internal".to_owned()]);
    let rules = AddressRules::new(nets.to_vec(), hosts, HashSet::new());
    let allows = |text: &str| rules.allows("host", text.parse::<IpAddr>().unwrap());
    assert!(allows("10.1.2.3") && allows("::ffff:10.1.2.3") && allows("fd12::1"));
    assert!(!allows("10.2.0.1") && !allows("169.254.169.254") && !allows("fd00:ec2::254"));
    assert!(rules.allows("SCIM.internal", "10.2.0.1".parse().unwrap()));
    assert!(!rules.allows("scim.internal", "169.254.169.254".parse().unwrap()));
}

#[test]
fn only_configured_https_destinations_are_callable() {
    let outbound =
        Outbound::new(&OutboundConfig { ca_bundle_pem: None, ..allow(&["http://127.0.0.1:9/base"]) })
            .unwrap();
    assert!(outbound.destination("http://127.0.0.1:9/other/path").is_ok());
    let table = [
        ("http://127.0.0.1:10/", OutboundError::NotConfigured { host: "127.0.0.1".into() }),
        ("https://127.0.0.1:9/", OutboundError::NotConfigured { host: "127.0.0.1".into() }),
        ("https://elsewhere.example/", OutboundError::NotConfigured { host: "elsewhere.example".into() }),
        ("http://elsewhere.example/", OutboundError::NotHttps { host: "elsewhere.example".into() }),
        ("http://2130706434:9/", OutboundError::NotConfigured { host: "127.0.0.2".into() }),
        ("http://user@127.0.0.1:9/", OutboundError::BadUrl),
        ("http://127.0.0.1:9/#part", OutboundError::BadUrl),
        ("file:///etc/passwd", OutboundError::BadUrl),
        ("gopher://127.0.0.1:9/", OutboundError::BadUrl),
        ("//127.0.0.1:9/", OutboundError::BadUrl),
    ];
    for (url, error) in table {
        assert_eq!(outbound.destination(url), Err(error), "{url}");
    }
    let without = OutboundConfig { allow_http: false, ..allow(&["http://127.0.0.1:9/"]) };
    assert!(matches!(Outbound::new(&without), Err(OutboundError::NotHttps { .. })));
}

#[test]
fn an_address_written_out_is_refused_unless_its_network_is_configured() {
    let pem = include_bytes!("test-ca.pem").to_vec();
    let mut config =
        OutboundConfig { ca_bundle_pem: Some(pem), ..allow(&["https://10.0.0.7/scim", "https://[::1]/"]) };
    let closed = Outbound::new(&config).unwrap();
    assert!(matches!(
        closed.destination("https://10.0.0.7/scim/v2"),
        Err(OutboundError::ForbiddenAddress { .. })
    ));
    assert!(matches!(closed.destination("https://[::1]/"), Err(OutboundError::ForbiddenAddress { .. })));
    config.private_networks = vec!["10.0.0.0/8".parse().unwrap()];
    let open = Outbound::new(&config).unwrap();
    assert!(open.destination("https://10.0.0.7/scim/v2").is_ok());
}

#[test]
fn a_ca_bundle_without_certificates_is_refused() {
    let config = OutboundConfig { ca_bundle_pem: Some(b"nothing".to_vec()), ..OutboundConfig::default() };
    assert!(matches!(Outbound::new(&config), Err(OutboundError::Build(_))));
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_is_not_called() {
    let pem = include_bytes!("test-ca.pem").to_vec();
    let config = OutboundConfig { ca_bundle_pem: Some(pem), ..allow(&["https://localhost:9/"]) };
    let outbound = Outbound::new(&config).unwrap();
    let url = outbound.destination("https://localhost:9/").unwrap();
    let error = outbound.send(Call::get(url)).await.unwrap_err();
    assert_eq!(error, OutboundError::ForbiddenAddress { host: "localhost".into() });
}

#[tokio::test]
async fn a_good_answer_is_read_whole() {
    let (base, _) = answering(http("200 OK\r\nContent-Type: Application/JSON; charset=utf-8", b"{}")).await;
    let outbound = Outbound::new(&allow(&[&base])).unwrap();
    let answer = outbound.send(Call::get(outbound.destination(&base).unwrap())).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"{}".as_slice()));
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (goal, reached) = answering(http("200 OK", b"{}")).await;
    let (base, _) = answering(http(&format!("302 Found\r\nLocation: {goal}/"), b"")).await;
    let outbound = Outbound::new(&allow(&[&base, &goal])).unwrap();
    let error = outbound.send(Call::get(outbound.destination(&base).unwrap())).await.unwrap_err();
    assert!(matches!(error, OutboundError::Redirect { .. }));
    assert_eq!(reached.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_over_a_mebibyte_is_cut_off_whether_or_not_it_says_its_length() {
    let big = vec![b'a'; MAX_ANSWER_BYTES + 1];
    for head in ["200 OK".to_owned(), format!("200 OK\r\nContent-Length: {}", big.len())] {
        let (base, _) = answering(http(&head, &big)).await;
        let outbound = Outbound::new(&allow(&[&base])).unwrap();
        let error = outbound.send(Call::get(outbound.destination(&base).unwrap())).await.unwrap_err();
        assert!(matches!(error, OutboundError::TooLarge { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_compressed_answer_is_refused_so_there_are_no_bombs() {
    let (base, _) = answering(http("200 OK\r\nContent-Encoding: gzip", b"\x1f\x8b")).await;
    let outbound = Outbound::new(&allow(&[&base])).unwrap();
    let error = outbound.send(Call::get(outbound.destination(&base).unwrap())).await.unwrap_err();
    assert!(matches!(error, OutboundError::Encoded { .. }));
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_three_seconds() {
    let (base, _) = answering(Vec::new()).await;
    let outbound = Outbound::new(&allow(&[&base])).unwrap();
    let before = tokio::time::Instant::now();
    let error = outbound.send(Call::get(outbound.destination(&base).unwrap())).await.unwrap_err();
    assert!(matches!(error, OutboundError::Timeout { .. }), "{error:?}");
    assert!(before.elapsed() < TOTAL_TIMEOUT + Duration::from_secs(2));
}

#[test]
fn a_value_is_one_path_segment_whatever_it_holds() {
    let base = Url::parse("https://scim.example/v2/Users?x=1").unwrap();
    let table = [
        ("user_42", "https://scim.example/v2/Users/user_42"),
        ("../Groups", "https://scim.example/v2/Users/..%2FGroups"),
        ("a/b?c#d", "https://scim.example/v2/Users/a%2Fb%3Fc%23d"),
        ("%2e%2e", "https://scim.example/v2/Users/%252e%252e"),
        ("é\\ ", "https://scim.example/v2/Users/%C3%A9%5C%20"),
    ];
    for (value, want) in table {
        assert_eq!(with_segment(&base, value).unwrap().as_str(), want);
    }
    for refused in ["", ".", ".."] {
        assert_eq!(with_segment(&base, refused), Err(OutboundError::BadSegment));
    }
}

#[tokio::test]
async fn errors_and_debug_show_neither_secrets_nor_paths() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let outbound = Outbound::new(&allow(&[&base])).unwrap();
    let url = outbound.destination(&format!("{base}/private-path?q=private-query")).unwrap();
    let call = Call::get(url).bearer("private-secret").unwrap();
    let shown = format!("{call:?}");
    let error = outbound.send(call).await.unwrap_err();
    let all = format!("{shown} {error} {error:?}");
    assert!(!all.contains("private"), "{all}");
}
