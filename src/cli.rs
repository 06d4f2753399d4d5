//! The command line: what can be typed, and the layer of settings that it makes.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use sipdoor::config::{At, Cause, Certificate, Error, Listen, Place, Written};
use sipdoor::flow::Transport;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

const ABOUT: &str = "\
The front door of an Asterisk: SIP over UDP, TCP and TLS for those who know the secret domain, silence for everybody else.

Phones are set up with a domain that nobody else knows; Asterisk listens on loopback only. Every TLS connection must \
ask for that domain in its ClientHello, every SIP message must carry it in Request-URI, From and To: what does is \
forwarded to Asterisk, what does not gets no answer and is counted.";

const AFTER: &str = "\
Examples:
  sipdoor demo                                        see it work, on loopback, with a small PBX inside
  sipdoor certs --name k7q2.example.com               a development certificate in certs/
  sipdoor run --name k7q2.example.com --cert certs/door.pem --key certs/door.key
  sipdoor check -c /etc/sipdoor.toml                  can this file be used?
  sipdoor status --watch                              the counters of the running door

Exit codes (sysexits.h): 0 good; 64 wrong usage; 69 an address is taken, or no door answers; 70 a fault of the program; \
71 the system refuses; 73 a file cannot be made; 77 not permitted; 78 a wrong setting.";

/// What was typed.
#[derive(Parser)]
#[command(name = "sipdoor", version, about = ABOUT, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Open the door: listen, check, forward, until SIGTERM or SIGINT
    ///
    /// Settings come from the file (-c), the SIPDOOR_* variables and the flags; flags win over variables, variables
    /// over the file. Without a file, --name is all that is needed. SIGHUP loads the certificates again.
    Run(Door),
    /// Say whether these settings can be used, and what the door would do with them
    Check(Door),
    /// Say what the gate would do with a SIP message, step by step, and why
    ///
    /// The message comes on standard input, as captured or pasted from a log:
    /// sipdoor explain -c /etc/sipdoor.toml --transport tls < register.sip
    /// The bytes at fault are marked. The exit code is 0 if the message passes and 1 if it is refused. Messages inside
    /// a dialog are judged by their hosts, because the running door's key is not read.
    Explain(Explain),
    /// Make a development authority, and a certificate for the door signed by it
    ///
    /// ECDSA P-256, for trying out: phones must be given dev-ca.pem. Nothing is overwritten. On the internet, take a
    /// certificate from a public authority for a wildcard (*.example.com): every certificate is published in the
    /// transparency logs with its names, and a wildcard does not give the secret one away.
    Certs(Certs),
    /// Show the counters of the running door, as iptables -nvL does
    ///
    /// One chain for each transport; in it one row for each rule that accepts and each reason to refuse, in the order
    /// in which the gate checks.
    Status(Status),
    /// See it work on loopback: phones with the name, strangers without, a small PBX inside
    ///
    /// A real door with a certificate of its own making stands before a toy PBX in this program. Phones register, call
    /// and are called over TLS, UDP and TCP; strangers try the address. What each saw is printed, and the counters.
    /// The exit code is 0 if all went as it should and 1 if not. The PBX is for this demo only.
    Demo(Demo),
    /// Print the completions of a shell
    ///
    /// For bash: sipdoor completions bash > /etc/bash_completion.d/sipdoor
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: Shell,
    },
}

/// The settings of a door.
#[derive(Args)]
pub(crate) struct Door {
    /// The settings file (TOML); config/sipdoor.toml shows every setting
    #[arg(short, long, value_name = "FILE", env = "SIPDOOR_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// A domain that opens the door; may be repeated
    #[arg(long, value_name = "NAME", env = "SIPDOOR_NAME", hide_env_values = true)]
    name: Vec<String>,
    /// A certificate chain, PEM, the leaf first; may be repeated, each with its --key
    #[arg(long, value_name = "FILE", env = "SIPDOOR_CERT", hide_env_values = true)]
    cert: Vec<String>,
    /// The private key of the certificate at the same place, PEM
    #[arg(long, value_name = "FILE", env = "SIPDOOR_KEY", hide_env_values = true)]
    key: Vec<String>,
    /// Where Asterisk listens: UDP, on loopback [default: 127.0.0.1:5080]
    #[arg(long, value_name = "ADDR:PORT", env = "SIPDOOR_BACKEND", hide_env_values = true)]
    backend: Option<String>,
    /// Where the door listens for Asterisk: UDP and TCP, on loopback [default: 127.0.0.1:5070]
    #[arg(long, value_name = "ADDR:PORT", env = "SIPDOOR_INSIDE", hide_env_values = true)]
    inside: Option<String>,
    /// Listen for SIP over UDP here; may be repeated. One --listen-* replaces all usual ports
    /// [default: 0.0.0.0:5060 and [::]:5060]
    #[arg(long, value_name = "ADDR:PORT", env = "SIPDOOR_LISTEN_UDP", hide_env_values = true)]
    listen_udp: Vec<String>,
    /// Listen for SIP over TCP here; may be repeated [default: 0.0.0.0:5060 and [::]:5060]
    #[arg(long, value_name = "ADDR:PORT", env = "SIPDOOR_LISTEN_TCP", hide_env_values = true)]
    listen_tcp: Vec<String>,
    /// Listen for SIP over TLS here; may be repeated [default: 0.0.0.0:5061 and [::]:5061, given a certificate]
    #[arg(long, value_name = "ADDR:PORT", env = "SIPDOOR_LISTEN_TLS", hide_env_values = true)]
    listen_tls: Vec<String>,
    /// The public address for media, behind NAT; one IPv4 and one IPv6 at most
    /// [default: the address that the phone reached]
    #[arg(long, value_name = "ADDR", env = "SIPDOOR_ADVERTISE", hide_env_values = true)]
    advertise: Vec<String>,
    #[command(flatten)]
    home: Home,
    /// Count and log what would be refused for its hosts, but let it through
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
          env = "SIPDOOR_OBSERVE", hide_env_values = true)]
    observe: Option<String>,
    /// Worker threads, 0 for one per processor [default: 0]
    #[arg(long, value_name = "N", env = "SIPDOOR_WORKERS", hide_env_values = true)]
    workers: Option<String>,
    /// How much is logged: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "SIPDOOR_LOG", hide_env_values = true)]
    log: Option<String>,
}

/// Where a door keeps its things.
#[derive(Args)]
pub(crate) struct Home {
    /// The state directory: registered phones, the door's key [default: /var/lib/sipdoor]
    #[arg(long, value_name = "DIR", env = "SIPDOOR_STATE", hide_env_values = true)]
    state: Option<String>,
    /// The socket that `sipdoor status` asks [default: admin.sock in the state directory]
    #[arg(long, value_name = "PATH", env = "SIPDOOR_ADMIN", hide_env_values = true)]
    admin: Option<String>,
}

/// What `sipdoor explain` takes.
#[derive(Args)]
pub(crate) struct Explain {
    /// How the message came
    #[arg(long, value_enum, default_value_t = Carrier::Udp)]
    pub(crate) transport: Carrier,
    /// Where the message came from
    #[arg(long, value_name = "ADDR[:PORT]", default_value = "192.0.2.1", value_parser = source)]
    pub(crate) from: SocketAddr,
    /// Take the bytes as they are, also when the lines end in LF only
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) door: Door,
}

/// A transport as typed.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Carrier {
    Udp,
    Tcp,
    Tls,
}

impl From<Carrier> for Transport {
    fn from(carrier: Carrier) -> Self {
        match carrier {
            Carrier::Udp => Self::Udp,
            Carrier::Tcp => Self::Tcp,
            Carrier::Tls => Self::Tls,
        }
    }
}

fn source(text: &str) -> Result<SocketAddr, &'static str> {
    let alone = text.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 5060));
    alone.or_else(|_| text.parse()).map_err(|_| "write an IP address, with a port if you like")
}

/// What `sipdoor certs` takes.
#[derive(Args)]
pub(crate) struct Certs {
    /// A domain that the certificate is for; may be repeated
    #[arg(long, value_name = "NAME", required = true)]
    pub(crate) name: Vec<String>,
    /// The directory for dev-ca.pem, dev-ca.key, door.pem and door.key
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
}

/// What `sipdoor demo` takes.
#[derive(Args)]
pub(crate) struct Demo {
    /// Stay when the story is over, for a softphone of your own
    #[arg(long)]
    pub(crate) stay: bool,
    /// The secret domain
    #[arg(long, value_name = "NAME", default_value = "k7q2.demo.test")]
    pub(crate) name: String,
    /// The door's outside address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.2")]
    pub(crate) listen: IpAddr,
    /// The port for UDP and TCP [default: 5060, or any if it is taken]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// The port for TLS [default: 5061, or any if it is taken]
    #[arg(long, value_name = "PORT")]
    pub(crate) tls_port: Option<u16>,
    /// How much the door logs: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub(crate) log: String,
}

/// What `sipdoor status` takes.
#[derive(Args)]
pub(crate) struct Status {
    /// The settings file of the running door, to find its admin socket
    #[arg(short, long, value_name = "FILE", env = "SIPDOOR_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    home: Home,
    /// Print JSON, with every row
    #[arg(long)]
    pub(crate) json: bool,
    /// Print again every SECONDS, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", require_equals = true,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch: Option<u64>,
    /// Show the rows at 0 too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print whole numbers in place of 12K
    #[arg(short = 'x', long)]
    pub(crate) exact: bool,
}

/// Reads the command line; the second value is what [`Door::written`] needs to tell a flag from a variable.
pub(crate) fn parse() -> Result<(Cli, ArgMatches), clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    let cli = Cli::from_arg_matches(&matches)?;
    let own = matches.subcommand().map_or_else(ArgMatches::default, |(_, own)| own.clone());
    Ok((cli, own))
}

/// The completions of one shell, to standard output.
pub(crate) fn complete(shell: Shell, to: &mut dyn std::io::Write) {
    clap_complete::generate(shell, &mut Cli::command(), "sipdoor", to);
}

impl Door {
    /// The flags and variables as a layer of settings.
    pub(crate) fn written(&self, matches: &ArgMatches) -> Result<Written, Error> {
        let from = Sources(matches);
        let name = from.list("name", &self.name);
        let place = name.first().map_or(Place::BuiltIn, At::here);
        Ok(Written {
            names: (!name.is_empty()).then_some(At { value: name, place }),
            advertise: Some(from.list("advertise", &self.advertise)).filter(|all| !all.is_empty()),
            listen: Some(self.listeners(&from)).filter(|all| !all.is_empty()),
            certificates: self.certificates(&from)?,
            backend: from.one("backend", self.backend.as_ref()),
            inside: from.one("inside", self.inside.as_ref()),
            observe: from.one("observe", self.observe.as_ref()).map(boolean).transpose()?,
            workers: from.one("workers", self.workers.as_ref()).map(integer).transpose()?,
            log: from.one("log", self.log.as_ref()),
            ..self.home.written(matches)
        })
    }

    fn listeners(&self, from: &Sources<'_>) -> Vec<Listen> {
        let all = [
            (Transport::Udp, from.list("listen_udp", &self.listen_udp)),
            (Transport::Tcp, from.list("listen_tcp", &self.listen_tcp)),
            (Transport::Tls, from.list("listen_tls", &self.listen_tls)),
        ];
        let of = |(transport, addresses): (Transport, Vec<At<String>>)| {
            addresses.into_iter().map(move |address| Listen { transport, address, advertise: None })
        };
        all.into_iter().flat_map(of).collect()
    }

    fn certificates(&self, from: &Sources<'_>) -> Result<Option<Vec<Certificate>>, Error> {
        let (certs, keys) = (from.list("cert", &self.cert), from.list("key", &self.key));
        if certs.len() != keys.len() {
            let place = certs.first().or(keys.first()).map_or(Place::BuiltIn, At::here);
            return fail(place, Cause::Pairs { certs: certs.len(), keys: keys.len() });
        }
        let pairs = certs.into_iter().zip(keys).map(|(cert, key)| Certificate { cert, key });
        Ok(Some(pairs.collect::<Vec<_>>()).filter(|all| !all.is_empty()))
    }
}

impl Status {
    /// Where the running door keeps its things, as far as flags and variables say it.
    pub(crate) fn written(&self, matches: &ArgMatches) -> Written {
        self.home.written(matches)
    }
}

impl Home {
    fn written(&self, matches: &ArgMatches) -> Written {
        let from = Sources(matches);
        let state = from.one("state", self.state.as_ref());
        Written { state, admin: from.one("admin", self.admin.as_ref()), ..Written::default() }
    }
}

/// Tells where clap found a value. The flag and the variable of a setting are both named after its argument.
struct Sources<'a>(&'a ArgMatches);

impl Sources<'_> {
    fn place(&self, id: &str) -> Place {
        match self.0.value_source(id) {
            Some(ValueSource::EnvVariable) => Place::Environment(format!("SIPDOOR_{}", id.to_ascii_uppercase())),
            _ => Place::Flag(format!("--{}", id.replace('_', "-"))),
        }
    }

    /// An empty variable is as good as none: container files set it so.
    fn one(&self, id: &str, value: Option<&String>) -> Option<At<String>> {
        let at = At { value: value?.clone(), place: self.place(id) };
        (!at.value.is_empty() || matches!(at.place, Place::Flag(_))).then_some(at)
    }

    /// Flags are repeated; a variable holds a list by comma.
    fn list(&self, id: &str, values: &[String]) -> Vec<At<String>> {
        let place = self.place(id);
        let at = |value: &str| At { value: value.to_owned(), place: place.clone() };
        match place {
            Place::Environment(_) => {
                let parts = values.iter().flat_map(|all| all.split(',')).map(str::trim);
                parts.filter(|part| !part.is_empty()).map(at).collect()
            }
            _ => values.iter().map(|value| at(value)).collect(),
        }
    }
}

fn boolean(at: At<String>) -> Result<At<bool>, Error> {
    let value = match at.value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => true,
        "false" | "no" | "off" | "0" => false,
        _ => return fail(at.place, Cause::Choice { text: at.value, choices: "true, false" }),
    };
    Ok(At { value, place: at.place })
}

fn integer(at: At<String>) -> Result<At<i64>, Error> {
    match at.value.parse() {
        Ok(value) => Ok(At { value, place: at.place }),
        Err(_) => fail(at.place, Cause::Number { text: at.value, least: 0, most: 1024 }),
    }
}

fn fail<T>(place: Place, cause: Cause) -> Result<T, Error> {
    Err(Error { place, key: "".into(), cause: Box::new(cause) })
}
