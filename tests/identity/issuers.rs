//! Actors against a real OpenID provider.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use stagedoor::server::actors::{
    ActorTokenError, Actors, DEFAULT_MAX_AGE_SECONDS, Declared, IssuerConfig, KeySource, Reason, TokenKind,
    VerifiedActor,
};
use stagedoor::token::{Alg, Audience, Clock as _, Invalid, Issuer};

use super::parts::{Idp, PushedClock, outbound};

const US: &str = "https://stagedoor.example";

pub fn config(issuer: &str) -> IssuerConfig {
    IssuerConfig {
        iss: Issuer::try_from(issuer).unwrap(),
        source: KeySource::Discovery(format!("{issuer}/.well-known/openid-configuration")),
        audiences: vec![Audience::try_from(US).unwrap()],
        clients: vec!["support-console".into(), "billing-bot".into()],
        algs: vec![Alg::Es256],
        typ: vec![],
        roles_path: Some("realm_access.roles".into()),
        groups_path: Some("groups".into()),
        org_path: Some("org".into()),
        directory_path: None,
        id_token: false,
        max_age_seconds: DEFAULT_MAX_AGE_SECONDS,
    }
}

pub struct Stage {
    pub actors: Arc<Actors>,
    pub clock: Arc<PushedClock>,
}

impl Stage {
    pub fn new(config: IssuerConfig, destinations: &[&str]) -> Self {
        let clock = PushedClock::new();
        let own = Issuer::try_from(US).unwrap();
        let shared: Arc<dyn stagedoor::token::Clock> = Arc::<PushedClock>::clone(&clock);
        let actors = Actors::new(&own, vec![config], &outbound(destinations), shared).unwrap();
        Self { actors: Arc::new(actors), clock }
    }

    async fn ready(idp: &Idp, change: impl FnOnce(&mut IssuerConfig)) -> Self {
        let mut config = config(idp.issuer());
        change(&mut config);
        let stage = Self::new(config, &[idp.issuer()]);
        stage.actors.refresh().await;
        stage
    }

    pub async fn verify(
        &self,
        token: &str,
        declared: Declared,
    ) -> Result<Arc<VerifiedActor>, ActorTokenError> {
        self.actors.verify_actor_token(token, declared, self.clock.now()).await
    }
}

fn refused(reason: impl Into<Reason>) -> Result<(), ActorTokenError> {
    Err(ActorTokenError::NotAcceptable(reason.into()))
}

#[tokio::test]
async fn a_service_proves_itself_by_client_credentials() {
    let Some(idp) = Idp::start() else { return };
    let stage = Stage::ready(&idp, |_| {}).await;
    let token = idp.service_token(US).await;
    let actor = stage.verify(&token, Declared::AccessToken).await.unwrap();
    assert_eq!(actor.facts.act.sub.as_str(), "billing-bot");
    assert_eq!(actor.facts.act.iss.as_ref().unwrap().as_str(), idp.issuer());
    assert_eq!((actor.client_id.as_str(), actor.facts.auth_time), ("billing-bot", None));
}

#[tokio::test]
async fn a_person_proves_himself_by_code_and_pkce_and_his_id_token_only_where_configured() {
    let Some(idp) = Idp::start() else { return };
    let strict = Stage::ready(&idp, |_| {}).await;
    let with_ids = Stage::ready(&idp, |c| c.id_token = true).await;
    let tokens = idp.sign_in("support-console", "admin_7", Some(US)).await;

    let actor = strict.verify(&tokens.access, Declared::AccessToken).await.unwrap();
    assert_eq!(actor.facts.act.sub.as_str(), "admin_7");
    assert_eq!(actor.facts.roles, ["admin"]);
    assert_eq!(actor.facts.groups, ["staff"]);
    assert_eq!(actor.facts.org.as_deref(), Some("acme"));
    assert_eq!(
        (actor.facts.acr.as_deref(), actor.facts.amr.as_slice()),
        (Some("silver"), ["pwd".to_owned()].as_slice())
    );
    let login = strict.clock.now() - actor.facts.auth_time.expect("when he logged in");
    assert!((0..60).contains(&login.num_seconds()), "{login}");

    // TE-4, field.md: an ID token is no access token.
    assert_eq!(strict.verify(&tokens.id, Declared::Jwt).await.map(drop), refused(Reason::IdToken));
    assert_eq!(with_ids.verify(&tokens.id, Declared::AccessToken).await.map(drop), refused(Reason::IdToken));
    assert_eq!(
        with_ids.verify(&tokens.access, Declared::IdToken).await.map(drop),
        refused(Reason::NotAnIdToken)
    );
    let actor = with_ids.verify(&tokens.id, Declared::IdToken).await.unwrap();
    assert_eq!((actor.kind, actor.client_id.as_str()), (TokenKind::Id, "support-console"));
    assert_eq!(actor.facts.roles, ["admin"]);
}

#[tokio::test]
async fn tokens_for_others_of_others_and_for_other_clients_are_refused() {
    let (Some(idp), Some(stranger)) = (Idp::start(), Idp::start()) else { return };
    let stage = Stage::ready(&idp, |c| c.id_token = true).await;

    let token = stranger.service_token(US).await;
    assert_eq!(stage.verify(&token, Declared::Jwt).await.map(drop), refused(Invalid::Issuer));
    assert_eq!(stranger.count("/jwks").await, 0, "an issuer that is not trusted is never called");

    let token = idp.service_token("https://other.example").await;
    assert_eq!(stage.verify(&token, Declared::Jwt).await.map(drop), refused(Invalid::Audience));

    // The same admin signs in to a low-value application: its tokens must not speak for him here.
    let replayed = idp.sign_in("low-value-app", "admin_7", Some(US)).await;
    assert_eq!(stage.verify(&replayed.access, Declared::Jwt).await.map(drop), refused(Invalid::Client));
    assert_eq!(stage.verify(&replayed.id, Declared::Jwt).await.map(drop), refused(Invalid::Audience));

    let opaque = idp.sign_in("support-console", "admin_7", None).await;
    assert!(!opaque.access.contains('.'));
    assert_eq!(stage.verify(&opaque.access, Declared::Jwt).await.map(drop), refused(Invalid::NotCompact));
}

#[tokio::test]
async fn a_token_expired_by_one_second_and_one_issued_too_long_ago_are_refused() {
    let Some(idp) = Idp::start() else { return };
    let stage = Stage::ready(&idp, |c| c.max_age_seconds = 120).await;
    let token = idp.service_token(US).await;
    let actor = stage.verify(&token, Declared::Jwt).await.unwrap();
    let at = |time, seconds| {
        stage.actors.verify_actor_token(&token, Declared::Jwt, time + TimeDelta::seconds(seconds))
    };
    assert!(at(actor.issued_at, 120).await.is_ok());
    assert_eq!(at(actor.issued_at, 121).await.map(drop), refused(Reason::TooOld));
    assert_eq!(at(actor.expires_at, 0).await.map(drop), refused(Invalid::Expired));
    assert_eq!(at(actor.expires_at, 1).await.map(drop), refused(Invalid::Expired));
    // And without the memory of the first time.
    let cold = Stage::ready(&idp, |c| c.max_age_seconds = 86_400).await;
    let late =
        cold.actors.verify_actor_token(&token, Declared::Jwt, actor.expires_at + TimeDelta::seconds(1));
    assert_eq!(late.await.map(drop), refused(Invalid::Expired));
}

#[tokio::test]
async fn a_key_rotated_while_running_is_found_and_the_old_one_dies() {
    let Some(idp) = Idp::start() else { return };
    let stage = Stage::ready(&idp, |_| {}).await;
    let old = idp.service_token(US).await;
    assert!(stage.verify(&old, Declared::Jwt).await.is_ok());

    idp.control("rotate").await;
    let new = idp.service_token(US).await;
    assert_eq!(
        stage.verify(&new, Declared::Jwt).await.map(drop),
        refused(Invalid::KeyUnknown),
        "asked a moment ago"
    );
    assert!(stage.verify(&old, Declared::Jwt).await.is_ok(), "not known to be gone yet");
    stage.clock.push(60);
    assert!(stage.verify(&new, Declared::Jwt).await.is_ok());
    assert_eq!(
        stage.verify(&old, Declared::Jwt).await.map(drop),
        refused(Invalid::KeyUnknown),
        "not from memory either"
    );
    assert_eq!(idp.count("/jwks").await, 2);
}

#[tokio::test]
async fn a_flood_of_unknown_kids_makes_one_fetch_a_minute_and_hinders_nobody() {
    let Some(idp) = Idp::start() else { return };
    let stage = Stage::ready(&idp, |_| {}).await;
    let good = idp.service_token(US).await;
    let [_, payload, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let unknown = |n: usize| {
        use base64::Engine as _;
        let header = format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"unknown-{n}"}}"#);
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header);
        format!("{header}.{payload}.{signature}")
    };
    for minute in 1..=3 {
        stage.clock.push(60);
        let before = idp.count("/jwks").await;
        let flood = (0..300).map(|n| {
            let (stage, token) = (&stage, unknown(n));
            async move { stage.verify(&token, Declared::Jwt).await.map(drop) }
        });
        for got in futures_util::future::join_all(flood).await {
            assert_eq!(got, refused(Invalid::KeyUnknown));
        }
        assert_eq!(idp.count("/jwks").await - before, 1, "minute {minute}");
        assert!(stage.verify(&good, Declared::Jwt).await.is_ok());
    }
}

#[tokio::test]
async fn a_slow_provider_holds_up_nobody_and_a_dead_one_leaves_its_keys() {
    let Some(idp) = Idp::start() else { return };
    let stage = Stage::ready(&idp, |_| {}).await;
    let token = idp.service_token(US).await;

    idp.control("slow?ms=20000").await;
    stage.clock.push(300);
    let actors = Arc::clone(&stage.actors);
    let fetch = tokio::spawn(async move { actors.refresh().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = stage.clock.monotonic();
    for _ in 0..50 {
        assert!(stage.verify(&token, Declared::Jwt).await.is_ok());
    }
    let took = stage.clock.monotonic().saturating_sub(began);
    assert!(took < Duration::from_secs(1), "no lock is held while fetching");
    assert!(!fetch.is_finished());
    fetch.await.unwrap();
    let status = stage.actors.status().remove(0).1;
    assert!(status.last_error.unwrap().contains("did not answer within 3 s"));

    idp.control("slow?ms=0").await;
    idp.control("rotate").await;
    let of_a_new_key = idp.service_token(US).await;
    idp.control("down?yes=1").await;
    stage.clock.push(60);
    stage.actors.refresh().await;
    let status = stage.actors.status().remove(0).1;
    assert!(status.last_error.unwrap().contains("503"));
    assert!(stage.verify(&token, Declared::Jwt).await.is_ok(), "its last good keys are kept");
    let issuer = Issuer::try_from(idp.issuer()).unwrap();
    let got = stage.verify(&of_a_new_key, Declared::Jwt).await.map(drop);
    assert_eq!(got, Err(ActorTokenError::Unreachable { issuer }), "it may be a new key: to be asked again");

    let never_knew = Stage::ready(&idp, |_| {}).await;
    let issuer = Issuer::try_from(idp.issuer()).unwrap();
    let got = never_knew.verify(&token, Declared::Jwt).await.map(drop);
    assert_eq!(got, Err(ActorTokenError::Unreachable { issuer }), "cannot be told is not refused");
}

#[tokio::test]
async fn metadata_that_names_another_issuer_is_not_believed() {
    let Some(idp) = Idp::start() else { return };
    for other in ["https://evil.example".to_owned(), format!("{}/", idp.issuer())] {
        idp.control(&format!("lie?issuer={other}")).await;
        let stage = Stage::ready(&idp, |_| {}).await;
        let token = idp.service_token(US).await;
        let got = stage.verify(&token, Declared::Jwt).await;
        assert!(matches!(got, Err(ActorTokenError::Unreachable { .. })), "{got:?}");
        let status = stage.actors.status().remove(0).1;
        assert!(status.last_error.unwrap().contains("names another issuer"));
    }
    assert_eq!(idp.count("/jwks").await, 0, "its key address is not used");
}
