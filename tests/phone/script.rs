//! The demo's phone as a program for tests: one command a line on standard input, one JSON object a line on standard
//! output, in order. `--help` shows the settings, the command `help` the commands.

use clap::Parser;
use serde_json::{Value, json};
use sipdoor::demo::agent::{Answer, Settings};
use sipdoor::demo::call::{Call, Phase};
use sipdoor::demo::message::Message;
use sipdoor::demo::phone::{Phone, Subscription};
use sipdoor::demo::sdp::Direction;
use sipdoor::demo::wire::Connect;
use sipdoor::demo::{Error, message::uri_of};
use sipdoor::flow::Transport;
use std::io::BufRead as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A phone for tests: commands in, JSON out.
#[derive(Parser)]
struct Arguments {
    /// User name, for URIs and digest
    #[arg(long)]
    user: String,
    /// Password
    #[arg(long, default_value = "")]
    password: String,
    /// Domain in all URIs; never looked up
    #[arg(long)]
    domain: String,
    /// udp, tcp or tls
    #[arg(long, default_value = "udp")]
    transport: String,
    /// Where everything is sent
    #[arg(long)]
    server: SocketAddr,
    /// Local address to use, with or without a port
    #[arg(long)]
    bind: Option<String>,
    /// Server name in the ClientHello; default: the domain
    #[arg(long, conflicts_with = "no_sni")]
    sni: Option<String>,
    /// No server name in the ClientHello
    #[arg(long)]
    no_sni: bool,
    /// PEM file of the only authority believed; default: any certificate
    #[arg(long)]
    ca: Option<PathBuf>,
    /// sips: URIs
    #[arg(long)]
    sips: bool,
    /// Treat Route as a strict router does
    #[arg(long)]
    strict: bool,
    /// User part of the Contact
    #[arg(long)]
    contact_user: Option<String>,
    /// +sip.instance of the Contact, as urn:uuid:…
    #[arg(long)]
    instance: Option<String>,
    /// What a call meets: auto, ring, or a status
    #[arg(long, default_value = "auto")]
    answer: String,
    /// Seconds until a request is given up
    #[arg(long, default_value_t = 32)]
    patience: u64,
    /// "Name: value" added to each request outside a dialog
    #[arg(long)]
    header: Vec<String>,
}

const HELP: &str = "register [SECONDS] | unregister | unregister-all | query | dial TARGET | ringing [S] | answered [S] | \
    cancel [S] | incoming [S] | answer | refuse STATUS | confirmed [S] | hangup | hold | resume | inactive | \
    reinvited [S] | ended [S] | rtp PACKETS [S] | quiet MILLISECONDS [S] | call | message TARGET TEXT | options TARGET | \
    arrival METHOD [S] | subscribe TARGET EVENT [SECONDS] | resubscribe SECONDS | ping [S] | closed [S] | reconnect | \
    reset | policy auto|ring|STATUS | last-request METHOD | last-response METHOD | transcript | forget | quit; \
    S is how long to wait, 10 by default; a call's commands mean the last one dialled or taken by `incoming`";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let phone = match start(&arguments).await {
        Ok(phone) => phone,
        Err(error) => {
            println!("{}", json!({ "command": "start", "ok": false, "error": error.to_string() }));
            std::process::exit(1);
        }
    };
    println!("{}", json!({ "command": "start", "ok": true, "local": phone.local().to_string() }));
    let mut shell = Shell { phone, call: None, subscription: None };
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((command, rest)) = words.split_first() else { continue };
        if *command == "quit" {
            break;
        }
        let (ok, mut answer) = match shell.run(command, rest).await {
            Ok(answer) => (true, answer),
            Err(Error::Refused(response)) => (false, json!({ "status": response.status(), "error": "refused" })),
            Err(error) => (false, json!({ "error": error.to_string() })),
        };
        if let Value::Object(fields) = &mut answer {
            fields.insert("command".to_owned(), json!(command));
            fields.insert("ok".to_owned(), json!(ok));
        }
        println!("{answer}");
    }
}

/// Standard input, read by a thread: a terminal or a pipe cannot be awaited everywhere.
fn lines() -> UnboundedReceiver<String> {
    let (sender, lines) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

async fn start(arguments: &Arguments) -> Result<Phone, Error> {
    let transport = Transport::ALL.into_iter().find(|t| t.name() == arguments.transport);
    let mut connect = Connect::new(transport.ok_or(Error::Unreadable("a known transport"))?, arguments.server);
    connect.bind = match &arguments.bind {
        None => None,
        Some(text) => {
            let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
            Some(alone.or_else(|_| text.parse()).map_err(|_| Error::Unreadable("an address to bind"))?)
        }
    };
    let name = arguments.sni.as_ref().unwrap_or(&arguments.domain);
    connect.tls.sni = (!arguments.no_sni).then(|| name.clone());
    connect.tls.ca = arguments.ca.as_ref().map(std::fs::read).transpose()?;
    let mut settings = Settings::new(&arguments.user, &arguments.password, &arguments.domain, connect);
    settings.sips = arguments.sips;
    settings.strict_route = arguments.strict;
    settings.contact_user.clone_from(&arguments.contact_user);
    settings.instance.clone_from(&arguments.instance);
    settings.patience = Duration::from_secs(arguments.patience);
    let headers = arguments.header.iter().filter_map(|header| header.split_once(':'));
    settings.extra = headers.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
    let phone = Phone::start(settings).await?;
    phone.set_answer(policy(&arguments.answer)?);
    Ok(phone)
}

fn policy(word: &str) -> Result<Answer, Error> {
    match word {
        "auto" => Ok(Answer::Auto),
        "ring" => Ok(Answer::Ring),
        status => status.parse().map(Answer::Refuse).map_err(|_| Error::Unreadable("auto, ring or a status")),
    }
}

struct Shell {
    phone: Phone,
    call: Option<Call>,
    subscription: Option<Subscription>,
}

impl Shell {
    async fn run(&mut self, command: &str, words: &[&str]) -> Result<Value, Error> {
        let word = |at: usize| words.get(at).copied().ok_or(Error::Unreadable("all its words"));
        let seconds = |at: usize| limit(words.get(at).copied());
        let phone = &self.phone;
        Ok(match command {
            "help" => json!({ "help": HELP }),
            "register" => response(&phone.register(number(words.first().copied(), 3600)?).await?),
            "unregister" => response(&phone.unregister().await?),
            "unregister-all" => response(&phone.unregister_all().await?),
            "query" => response(&phone.query().await?),
            "message" => {
                let text = words.get(1..).unwrap_or_default().join(" ");
                response(&phone.message(word(0)?, &text).await?)
            }
            "options" => response(&phone.request("OPTIONS", word(0)?, &[], None).await?),
            "arrival" => {
                let request = phone.arrival(word(0)?, seconds(1)?).await?;
                json!({ "body": String::from_utf8_lossy(&request.body), "raw": text(&request.raw) })
            }
            "subscribe" => {
                let subscription = phone.subscribe(word(0)?, word(1)?, number(words.get(2).copied(), 600)?).await?;
                self.subscription = Some(subscription);
                json!({})
            }
            "resubscribe" => {
                let subscription = self.subscription.as_ref().ok_or(Error::Unreadable("a subscription"))?;
                response(&subscription.refresh(number(words.first().copied(), 600)?).await?)
            }
            "dial" => {
                let call = phone.dial(word(0)?)?;
                let id = call.id().to_owned();
                self.call = Some(call);
                json!({ "call": id })
            }
            "incoming" => {
                let call = phone.incoming(seconds(0)?).await?;
                let (id, invite) = (call.id().to_owned(), call.invite());
                self.call = Some(call);
                json!({ "call": id, "uri": invite.uri(), "raw": text(&invite.raw) })
            }
            "ping" | "closed" | "reconnect" | "reset" | "forget" | "policy" | "last-request" | "last-response"
            | "transcript" => of_link(phone, command, words).await?,
            _ => {
                let call = self.call.as_ref().ok_or(Error::Unreadable("a call, or a known command (see help)"))?;
                of_call(call, command, words).await?
            }
        })
    }
}

async fn of_link(phone: &Phone, command: &str, words: &[&str]) -> Result<Value, Error> {
    let word = || words.first().copied().ok_or(Error::Unreadable("all its words"));
    let seconds = || limit(words.first().copied());
    Ok(match command {
        "ping" => done(phone.ping(seconds()?).await)?,
        "closed" => done(phone.closed(seconds()?).await)?,
        "reconnect" => {
            phone.reconnect().await?;
            json!({ "local": phone.local().to_string() })
        }
        "reset" => {
            phone.reset();
            json!({})
        }
        "forget" => {
            phone.forget();
            json!({})
        }
        "policy" => {
            phone.set_answer(policy(word()?)?);
            json!({})
        }
        "last-request" => raw(phone.last_request(word()?))?,
        "last-response" => raw(phone.last_response(word()?))?,
        "transcript" => {
            let records = phone.transcript();
            let lines = records.iter().map(|r| json!({ "sent": r.sent, "bytes": text(&r.bytes) }));
            json!({ "messages": lines.collect::<Vec<_>>() })
        }
        _ => return Err(Error::Unreadable("a known command (see help)")),
    })
}

async fn of_call(call: &Call, command: &str, words: &[&str]) -> Result<Value, Error> {
    let first = words.first().copied();
    Ok(match command {
        "ringing" => json!({ "status": call.ringing(limit(first)?).await? }),
        "answered" => done(call.answered(limit(first)?).await)?,
        "cancel" => json!({ "ending": format!("{:?}", call.cancel(limit(first)?).await?) }),
        "answer" => done(call.answer())?,
        "refuse" => done(call.refuse(u16::try_from(number(first, 486)?).unwrap_or(486)))?,
        "confirmed" => done(call.confirmed(limit(first)?).await)?,
        "hangup" => response(&call.hang_up().await?),
        "hold" => response(&call.hold().await?),
        "resume" => response(&call.resume().await?),
        "inactive" => response(&call.change(Direction::Inactive).await?),
        "reinvited" => json!({ "direction": call.reinvited(limit(first)?).await?.name() }),
        "ended" => json!({ "ending": format!("{:?}", call.ended(limit(first)?).await?) }),
        "rtp" => {
            let packets = u64::from(number(first, 25)?);
            let received = call.rtp(packets, limit(words.get(1).copied())?).await?;
            json!({ "received": received, "sent": call.sent(), "from": call.rtp_source().map(|a| a.to_string()) })
        }
        "quiet" => {
            let pause = Duration::from_millis(u64::from(number(first, 300)?));
            done(call.quiet(pause, limit(words.get(1).copied())?).await)?
        }
        "call" => {
            let dialog = call.dialog();
            json!({
                "phase": match call.phase() { Phase::Over(ending) => format!("{ending:?}"), phase => format!("{phase:?}") },
                "received": call.received(), "sent": call.sent(),
                "media": call.remote().map(|remote| remote.address.to_string()),
                "target": dialog.as_ref().map(|d| d.target.clone()),
                "routes": dialog.map(|d| d.routes),
            })
        }
        _ => return Err(Error::Unreadable("a known command (see help)")),
    })
}

fn response(response: &Message) -> Value {
    let contacts: Vec<_> = response.values("Contact").into_iter().map(uri_of).collect();
    json!({ "status": response.status(), "contacts": contacts, "raw": text(&response.raw) })
}

fn raw(message: Option<Message>) -> Result<Value, Error> {
    let message = message.ok_or(Error::Unreadable("a record of it"))?;
    Ok(json!({ "raw": text(&message.raw) }))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(result: Result<(), Error>) -> Result<Value, Error> {
    result.map(|()| json!({}))
}

fn limit(word: Option<&str>) -> Result<Duration, Error> {
    let seconds = word.map_or(Ok(10.0), str::parse).map_err(|_| Error::Unreadable("a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| Error::Unreadable("a number of seconds"))
}

fn number(word: Option<&str>, default: u32) -> Result<u32, Error> {
    word.map_or(Ok(default), str::parse).map_err(|_| Error::Unreadable("a number"))
}
