//! TLS served by the service itself: the certificate, its renewal, and what cannot be served.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::service::Place;
use crate::site::until;

/// A certificate of its own for this machine's loopback, and its key; both PEM.
struct Made {
    certificate: String,
    key: String,
}

impl Made {
    fn new() -> Self {
        let made =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// As renewal programs do it: new files, then names swapped.
    fn install(&self, dir: &Path) {
        for (name, text) in [("tls.crt", &self.certificate), ("tls.key", &self.key)] {
            std::fs::write(dir.join("new"), text).unwrap();
            std::fs::rename(dir.join("new"), dir.join(name)).unwrap();
        }
    }
}

/// A client that makes a new connection for each request, and trusts these alone.
fn trusting(made: &[&Made]) -> reqwest::Client {
    let authorities = made.iter().map(|m| reqwest::Certificate::from_pem(m.certificate.as_bytes()).unwrap());
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .https_only(true)
        .tls_certs_only(authorities)
        .build()
        .unwrap()
}

const SETTINGS: &str = "tls_cert_file = \"tls.crt\"\ntls_key_file = \"tls.key\"";

fn place(made: &Made) -> Place {
    let place = Place::new("");
    made.install(place.path());
    place.set(SETTINGS);
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_served_and_the_issuer_and_the_health_check_follow() {
    let made = Made::new();
    let place = place(&made);
    let port = crate::processes::free_port();
    let text = format!("{SETTINGS}\n").replacen("tls_", &format!("listen = \"127.0.0.1:{port}\"\ntls_"), 1);
    std::fs::write(place.path().join("stagedoor.toml"), text).unwrap();
    let process = place.serve();
    assert_eq!(process.url, format!("https://127.0.0.1:{port}"));
    let metadata = format!("{}/.well-known/oauth-authorization-server", process.url);
    let answer = trusting(&[&made]).get(&metadata).send().await.unwrap();
    let metadata: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(metadata["issuer"], process.url.as_str());
    assert!(place.command(&["health"]).status().unwrap().success());
    let stranger = trusting(&[&Made::new()]).get(format!("{}/healthz", process.url)).send().await;
    assert!(stranger.is_err(), "somebody else's authority does not do");
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(
        plain.get(process.url.replace("https", "http")).send().await.is_err(),
        "plain HTTP is not answered"
    );
    process.stop();
    assert!(!place.command(&["health"]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_taken_over_without_a_failed_connection() {
    let all: Vec<Made> = (0..4).map(|_| Made::new()).collect();
    let place = place(&all[0]);
    let process = place.serve();
    let url = format!("{}/healthz", process.url);
    let kept = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(all[0].certificate.as_bytes()).unwrap()])
        .build()
        .unwrap();
    assert_eq!(kept.get(&url).send().await.unwrap().status(), 200);

    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let hammering = tokio::spawn({
        let (client, url, over, asked) =
            (trusting(&all.iter().collect::<Vec<_>>()), url.clone(), Arc::clone(&over), Arc::clone(&asked));
        async move {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(client.get(&url).send().await.expect("no connection fails").status(), 200);
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    for made in &all[1..] {
        made.install(place.path());
        let client = trusting(&[made]);
        until("the new one is served", || async { client.get(&url).send().await.is_ok() }).await;
    }
    // a key that does not belong to it: the old one is served on
    std::fs::write(place.path().join("tls.key"), &all[0].key).unwrap();
    until("it is said", || async { place.logged().contains("the old one is served on") }).await;
    assert_eq!(trusting(&[&all[3]]).get(&url).send().await.unwrap().status(), 200);
    process.signal("-HUP");
    until("it lives on", || async { place.logged().contains("SIGHUP") }).await;
    over.store(true, Ordering::Relaxed);
    hammering.await.unwrap();
    assert!(asked.load(Ordering::Relaxed) > 20);
    assert_eq!(kept.get(&url).send().await.unwrap().status(), 200, "an open connection stays");
    process.stop();
}

#[test]
fn what_cannot_be_served_is_refused_with_what_to_do() {
    let (made, other) = (Made::new(), Made::new());
    let place = place(&made);
    let refused = |settings: &str, certificate: &str, key: &str| {
        place.set(settings);
        std::fs::write(place.path().join("tls.crt"), certificate).unwrap();
        std::fs::write(place.path().join("tls.key"), key).unwrap();
        let output = place.command(&["serve"]).stderr(std::process::Stdio::piped()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let (certificate, key) = (&made.certificate, &made.key);
    let table = [
        (SETTINGS, "", key.as_str(), "tls.crt holds no certificate"),
        (SETTINGS, certificate, "", "tls.key holds no private key"),
        (SETTINGS, certificate, &other.key, "cannot be used with the certificate"),
        (SETTINGS, certificate, certificate, "holds no private key"),
        ("tls_cert_file = \"tls.crt\"", certificate, key, "tls_key_file"),
        ("tls_key_file = \"tls.key\"", certificate, key, "tls_cert_file"),
        ("tls_cert_file = \"gone\"\ntls_key_file = \"tls.key\"", certificate, key, "gone cannot be read"),
        (&format!("{SETTINGS}\nissuer = \"http://127.0.0.1\""), certificate, key, "must be https"),
    ];
    for (settings, certificate, key, want) in table {
        let error = refused(settings, certificate, key);
        assert!(error.contains(want), "{want}: {error}");
        assert!(!error.contains("PRIVATE KEY"), "{error}");
    }
    place.set(SETTINGS);
    let dev = place.command(&["dev", "--once"]).stderr(std::process::Stdio::piped()).output().unwrap();
    assert!(String::from_utf8_lossy(&dev.stderr).contains("plain HTTP"), "{dev:?}");
}
