//! The first scene: phones that know the name.

use super::agent::Settings;
use super::call::{Call, Ending};
use super::message::{address_of, uri_of};
use super::pbx::{ECHO, Pbx, RINGS};
use super::phone::Phone;
use super::stage::Stage;
use super::wire::Connect;
use super::{Error, house::House};
use crate::flow::Transport;
use std::net::SocketAddr;
use std::time::Duration;

/// Users of the demo's PBX: one for each transport.
pub(super) const USERS: [(Transport, &str); 3] =
    [(Transport::Tls, "101"), (Transport::Udp, "102"), (Transport::Tcp, "103")];

/// A phone as its owner would set it up, with the name.
pub(super) fn settings(house: &House, transport: Transport, user: &str) -> Settings {
    let mut connect = Connect::new(transport, house.door(transport));
    connect.bind = house.phone_address().map(|ip| SocketAddr::new(ip, 0));
    connect.tls.sni = Some(house.name.clone());
    connect.tls.ca = Some(house.authority.clone());
    let mut settings = Settings::new(user, &house.password, &house.name, connect);
    settings.patience = LIMIT;
    settings.instance = Some(format!("urn:uuid:00000000-0000-4000-8000-000000000{user}"));
    settings
}

/// Plays all that a phone does in its life.
pub(super) async fn play(stage: &mut Stage, house: &House, pbx: &Pbx, transport: Transport, user: &str) {
    let who = format!("{} {user}", transport.via());
    let phone = stage.play(format_args!("{who} registers"), register(house, pbx, transport, user)).await;
    let Some(phone) = phone else { return };
    stage.play(format_args!("{who} calls {ECHO}, the echo"), echo(house, pbx, &phone)).await;
    stage.play(format_args!("{who} calls {RINGS}, which rings, and gives up"), give_up(pbx, &phone)).await;
    stage.play(format_args!("{who} is asked whether it is there"), qualify(pbx, user)).await;
    stage.play(format_args!("{who} is called"), called(pbx, &phone, user)).await;
    stage.play(format_args!("{who} writes and is written to"), texts(pbx, &phone, user)).await;
    if transport.is_stream() {
        stage.play(format_args!("{who} sends a keep-alive"), ping(&phone)).await;
    }
    stage.play(format_args!("{who} comes back from another port"), come_back(pbx, &phone, user)).await;
    stage.play(format_args!("{who} signs off"), sign_off(pbx, &phone, user)).await;
}

/// Phones that do things their own way.
pub(super) async fn peculiar(stage: &mut Stage, house: &House, pbx: &Pbx) {
    let mut sips = settings(house, Transport::Tls, "101");
    sips.sips = true;
    stage.play("TLS 101 with sips: URIs", own_way(house, pbx, sips)).await;
    let mut strict = settings(house, Transport::Udp, "102");
    strict.strict_route = true;
    stage.play("UDP 102, a strict router of before RFC 3261", own_way(house, pbx, strict)).await;
    let mut user = settings(house, Transport::Tcp, "103");
    user.contact_user = Some("103-0x5568319ad5f0".to_owned());
    stage.play("TCP 103 with another user in its Contact", own_way(house, pbx, user)).await;
}

async fn own_way(house: &House, pbx: &Pbx, settings: Settings) -> Result<((), &'static str), Error> {
    let user = settings.user.clone();
    let phone = sign_on(house, pbx, settings).await?;
    echo(house, pbx, &phone).await?;
    called(pbx, &phone, &user).await?;
    sign_off(pbx, &phone, &user).await?;
    Ok(((), "registers, calls, is called, signs off"))
}

/// A phone with the name and a wrong password meets the PBX, which says no.
pub(super) async fn wrong_password(house: &House) -> Result<((), &'static str), Error> {
    let mut settings = settings(house, Transport::Tls, "101");
    settings.password = "guess".to_owned();
    let response = Phone::start(settings).await?.register(600).await?;
    expect(response.status() == 401, || format!("the PBX answered {}", response.status()))?;
    Ok(((), "401 from the PBX: the name opens the door, the password is another matter"))
}

async fn register(house: &House, pbx: &Pbx, transport: Transport, user: &str) -> Result<(Phone, &'static str), Error> {
    let phone = sign_on(house, pbx, settings(house, transport, user)).await?;
    Ok((phone, "200 after a digest, its own Contact came back"))
}

async fn sign_on(house: &House, pbx: &Pbx, settings: Settings) -> Result<Phone, Error> {
    let user = settings.user.clone();
    let phone = Phone::start(settings).await?;
    let response = phone.register(600).await?.success()?;
    let own = phone.contact();
    let back: Vec<&str> = response.values("Contact").into_iter().map(uri_of).collect();
    expect(back == [uri_of(&own)], || format!("its Contact is {} and came back as {back:?}", uri_of(&own)))?;
    let known = contact(pbx, &user)?;
    let ours = address_of(&known) == Some(house.inside);
    expect(ours, || format!("the PBX knows it as {known}, which is not the door's address"))?;
    Ok(phone)
}

async fn echo(house: &House, pbx: &Pbx, phone: &Phone) -> Result<((), String), Error> {
    let call = phone.dial(ECHO)?;
    call.answered(LIMIT).await?;
    let theirs = pbx.incoming(LIMIT).await?;
    theirs.confirmed(LIMIT).await?;
    let media = call.remote().ok_or(Error::Unreadable("a description of its audio"))?.address;
    expect(media.ip() == house.listen, || format!("it was told to send its audio to {media}"))?;
    call.rtp(PACKETS, LIMIT).await?;
    call.hold().await?.success()?;
    call.quiet(Duration::from_millis(200), LIMIT).await?;
    call.resume().await?.success()?;
    call.rtp(PACKETS, LIMIT).await?;
    call.hang_up().await?.success()?;
    let ending = theirs.ended(LIMIT).await?;
    expect(ending == Ending::Bye, || format!("the PBX saw {ending:?} in place of a BYE"))?;
    Ok(((), format!("200, {} packets of audio came back, hold was quiet, BYE arrived", call.received())))
}

async fn give_up(pbx: &Pbx, phone: &Phone) -> Result<((), &'static str), Error> {
    let call = phone.dial(RINGS)?;
    let status = call.ringing(LIMIT).await?;
    expect(status == 180, || format!("{status} in place of 180"))?;
    let ending = call.cancel(LIMIT).await?;
    expect(ending == Ending::Refused(487), || format!("{ending:?} in place of 487"))?;
    let theirs = pbx.incoming(LIMIT).await?.ended(LIMIT).await?;
    expect(theirs == Ending::Cancelled, || format!("the PBX saw {theirs:?} in place of a CANCEL"))?;
    Ok(((), "180, CANCEL, 487"))
}

async fn qualify(pbx: &Pbx, user: &str) -> Result<((), &'static str), Error> {
    pbx.qualify(user).await?.success()?;
    Ok(((), "its 200 reached the PBX"))
}

async fn called(pbx: &Pbx, phone: &Phone, user: &str) -> Result<((), String), Error> {
    let call = pbx.call(user)?;
    let theirs = phone.incoming(LIMIT).await?;
    let (uri, own) = (theirs.invite().uri().to_owned(), phone.contact());
    expect(uri == uri_of(&own), || format!("the INVITE was to {uri}, its Contact is {}", uri_of(&own)))?;
    call.answered(LIMIT).await?;
    theirs.confirmed(LIMIT).await?;
    both_ways(&call, &theirs).await?;
    call.hang_up().await?.success()?;
    let ending = theirs.ended(LIMIT).await?;
    expect(ending == Ending::Bye, || format!("the phone saw {ending:?} in place of a BYE"))?;
    let counts = (call.received(), theirs.received());
    Ok(((), format!("200, audio {} packets one way and {} the other, the PBX hung up", counts.0, counts.1)))
}

async fn both_ways(one: &Call, other: &Call) -> Result<(), Error> {
    one.rtp(PACKETS, LIMIT).await?;
    other.rtp(PACKETS, LIMIT).await.map(drop)
}

async fn texts(pbx: &Pbx, phone: &Phone, user: &str) -> Result<((), &'static str), Error> {
    phone.message(ECHO, "good morning").await?.success()?;
    let there = pbx.arrival("MESSAGE", LIMIT).await?;
    pbx.message(user, "and to you").await?.success()?;
    let here = phone.arrival("MESSAGE", LIMIT).await?;
    let good = there.body == b"good morning" && here.body == b"and to you";
    expect(good, || "a text came out otherwise than it went in".to_owned())?;
    Ok(((), "MESSAGE in both directions"))
}

async fn ping(phone: &Phone) -> Result<((), &'static str), Error> {
    phone.ping(LIMIT).await?;
    Ok(((), "the door answered it"))
}

async fn come_back(pbx: &Pbx, phone: &Phone, user: &str) -> Result<((), &'static str), Error> {
    let before = contact(pbx, user)?;
    phone.reconnect().await?;
    phone.register(600).await?.success()?;
    let after = contact(pbx, user)?;
    expect(before == after, || format!("the PBX knew it as {before} and now as {after}"))?;
    pbx.qualify(user).await?.success()?;
    Ok(((), "to the PBX it is the same Contact, and it is reached"))
}

async fn sign_off(pbx: &Pbx, phone: &Phone, user: &str) -> Result<((), &'static str), Error> {
    let response = phone.unregister().await?.success()?;
    let left = response.values("Contact").len() + pbx.contacts(user).len();
    expect(left == 0, || format!("{left} Contacts are left"))?;
    Ok(((), "200, and the PBX has forgotten it"))
}

/// The one Contact that the PBX has of this user.
fn contact(pbx: &Pbx, user: &str) -> Result<String, Error> {
    match pbx.contacts(user).as_slice() {
        [one] => Ok(one.uri.clone()),
        others => Err(Error::Unexpected(format!("the PBX has {} Contacts of it", others.len()))),
    }
}

fn expect(good: bool, otherwise: impl FnOnce() -> String) -> Result<(), Error> {
    if good { Ok(()) } else { Err(Error::Unexpected(otherwise())) }
}

/// For one thing to happen; generous, because a busy machine is no fault of the door's.
const LIMIT: Duration = Duration::from_secs(10);
/// Half a second of audio.
const PACKETS: u64 = 25;
