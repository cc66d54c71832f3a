//! The coordinator's settings.

use crate::exit::Coded;
use crate::folders;
use crate::plan_files;
use crate::settings::kind::Kind::{
    AddressOrOff, Choice, Filter, Path, Size, Text, Texts, Time, Url, Whole,
};
use crate::settings::resolve::Settings;
use crate::settings::secrets;
use crate::settings::{
    Default::{Chosen, Fixed, Required},
    Key,
};
use pgsoak_coordinator::config::{
    CanaryPlan, Channel, CoordinatorConfig, Format, HttpListen, Mail, NotifyConfig, Secret,
    Security, Target, Webhook,
};
use pgsoak_coordinator::domain::notice::NoticeKind;
use pgsoak_workloads::file_error::hint;

/// All of them. A table's settings stand together; those without a table first.
pub const KEYS: &[Key] = &[
    Key::new(
        "listen",
        AddressOrOff,
        Fixed("127.0.0.1:7420"),
        "TCP address for agents and clients (gRPC). Keep it on loopback, a tunnel or a trusted network.",
    ),
    Key::new(
        "socket",
        Path,
        Chosen { words: "`socket` in the data folder", sample: "/run/pgsoak/coordinator.socket" },
        "Unix socket beside it.",
    ),
    Key::new(
        "data_dir",
        Path,
        Chosen {
            words: "/var/lib/pgsoak/coordinator for root, else ~/.local/share/pgsoak/coordinator",
            sample: "/var/lib/pgsoak/coordinator",
        },
        "Catalogue, runs and artifacts. One coordinator at a time works in it.",
    )
    .variable("PGSOAK_COORDINATOR_DATA"),
    Key::new(
        "log",
        Filter,
        Fixed("info"),
        "What is logged on standard error (\"info\", \"pgsoak_coordinator=debug\").",
    )
    .live(),
    Key::new(
        "heartbeat_every",
        Time(1, 600),
        Fixed("5s"),
        "How often agents say that they are there.",
    ),
    Key::new(
        "lease_ttl",
        Time(2, 3_600),
        Fixed("30s"),
        "Silence after which an agent counts as unreachable; its jobs go on by themselves. At least twice `heartbeat_every`.",
    ),
    Key::new(
        "tokens.agent_file",
        Path,
        Chosen { words: "none", sample: "/etc/pgsoak/agent.token" },
        "A file with the token with which agents come in over TCP, and wait for `pgsoak agents approve`. Where any token is set, whatever comes over TCP needs one; \
         the Unix socket needs none.",
    ),
    Key::new(
        "tokens.approved_agent_file",
        Path,
        Chosen { words: "none", sample: "/etc/pgsoak/approved-agent.token" },
        "A file with the token with which agents join at once.",
    ),
    Key::new(
        "tokens.client_file",
        Path,
        Chosen { words: "none", sample: "/etc/pgsoak/client.token" },
        "A file with the token with which people and programs may ask; they have it in PGSOAK_TOKEN.",
    ),
    Key::new(
        "canary.every",
        Time(60, 31_536_000),
        Chosen { words: "never", sample: "24h" },
        "How often each agent runs the health check; one that does not pass it is quarantined.",
    ),
    Key::new(
        "canary.plan",
        Text,
        Fixed("canary"),
        "The health check: a plan of the library or a file, whose verdict must be `pass`.",
    ),
    Key::new(
        "artifacts.url",
        Url(&["s3://", "file:///"]),
        Chosen { words: "they stay in the data folder", sample: "s3://soaks/raw" },
        "Where raw files of runs that are over move to: s3://BUCKET/PREFIX (S3 and its likes; keys, region and endpoint from AWS_* in \
         the environment), or file:///FOLDER.",
    ),
    Key::new(
        "keep.seal_after",
        Time(60, 365 * 86_400),
        Fixed("1h"),
        "The evidence of a run that is over for so long is packed into one file: a fraction of the space, the same bytes when it is read.",
    )
    .live(),
    Key::new(
        "keep.max_age",
        Time(3_600, 100 * 365 * 86_400),
        Chosen { words: "no limit", sample: "4320h" },
        "Runs that are over for longer are removed. Here and below: oldest first; pinned runs and baselines never are, and \
         `pgsoak runs prune --dry-run` says what would go.",
    )
    .live(),
    Key::new(
        "keep.max_runs",
        Whole(1, 1_000_000_000),
        Chosen { words: "no limit", sample: "10000" },
        "Runs that are kept at most.",
    )
    .live(),
    Key::new(
        "keep.max_bytes",
        Size,
        Chosen { words: "no limit", sample: "200 GB" },
        "What the evidence and raw files of all runs may take.",
    )
    .live(),
    Key::new(
        "http.listen",
        AddressOrOff,
        Fixed("127.0.0.1:7421"),
        "Address of the web pages, /metrics, /healthz and /readyz (HTTP, read only, without authentication). When nobody sets it and the \
         address is taken, the coordinator starts without it.",
    ),
    Key::new(
        "http.url",
        Url(&["http://", "https://"]),
        Chosen { words: "http:// and `listen`", sample: "https://soak.example.org" },
        "Where people reach the pages: the beginning of links in messages.",
    )
    .live(),
    Key::new(
        "notify.agent_lost_after",
        Time(0, 30 * 86_400),
        Fixed("15m"),
        "An agent that was not heard for so long is worth a message (\"0s\": never). Its jobs are not touched by that.",
    )
    .live(),
    Key::new(
        "webhook.*.url",
        Url(&["http://", "https://"]),
        Required { sample: "https://hooks.example.org/pgsoak" },
        "Where messages are posted. Any answer of 2xx is a success; others are tried again for three days.",
    )
    .live(),
    Key::new(
        "webhook.*.format",
        Choice(&["json", "slack"]),
        Fixed("json"),
        "The body: fields of our own (docs/notifications.md), or as Slack, Mattermost and their likes take it.",
    )
    .live(),
    Key::new(
        "webhook.*.secret_file",
        Path,
        Chosen { words: "not signed", sample: "/etc/pgsoak/webhook.secret" },
        "A file with the key of the signature (HMAC-SHA256, header X-Pgsoak-Signature); blanks around it do not count.",
    )
    .live(),
    Key::new(
        "webhook.*.on",
        Texts,
        Fixed(ON),
        "Of what: pass, fail, inconclusive, infrastructure (a run is invalid, or part of it failed for reasons of harness or host), \
         finding (the product shows something new), agent, schedule.",
    )
    .live(),
    Key::new(
        "mail.*.server",
        Text,
        Required { sample: "mail.example.org" },
        "The SMTP server: HOST or HOST:PORT. The port is 587 with starttls, 465 with tls, 25 with none.",
    )
    .live(),
    Key::new(
        "mail.*.security",
        Choice(&["starttls", "tls", "none"]),
        Fixed("starttls"),
        "TLS asked for at the beginning (and needed), TLS from the first byte, or none (for a server on this host).",
    )
    .live(),
    Key::new(
        "mail.*.user",
        Text,
        Chosen { words: "no login", sample: "pgsoak" },
        "User of the login; needs `password_file`.",
    )
    .live(),
    Key::new(
        "mail.*.password_file",
        Path,
        Chosen { words: "no login", sample: "/etc/pgsoak/mail.password" },
        "A file with the password; blanks around it do not count.",
    )
    .live(),
    Key::new(
        "mail.*.from",
        Text,
        Required { sample: "pgsoak <soak@example.org>" },
        "The sender.",
    )
    .live(),
    Key::new("mail.*.to", Texts, Required { sample: "dev@example.org" }, "The receivers, at least one.")
        .live(),
    Key::new("mail.*.on", Texts, Fixed(ON), "Of what, as for webhooks.").live(),
];

/// What people are told of when they do not choose: everything but runs that passed or had too little evidence.
const ON: &str = "fail,infrastructure,finding,agent,schedule";

/// What a coordinator is started with.
///
/// # Errors
///
/// Names settings that do not go together.
pub fn config(settings: &Settings) -> anyhow::Result<CoordinatorConfig> {
    let data_dir = settings
        .path("data_dir")?
        .unwrap_or_else(|| folders::coordinator_dir(&folders::default_data_dir()));
    let socket = settings.path("socket")?.unwrap_or_else(|| folders::socket_of(&data_dir));
    let mut config = CoordinatorConfig::new(data_dir);
    config.listen = settings.address("listen")?;
    config.socket = Some(socket);
    config.notify = notify(settings)?;
    config.artifacts_url = settings.text("artifacts.url")?.unwrap_or_default().to_owned();
    set(&mut config.keep.seal_after, settings.time("keep.seal_after")?);
    config.keep.max_age = settings.time("keep.max_age")?;
    let max_runs = settings.whole("keep.max_runs")?;
    config.keep.max_runs = max_runs.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    config.keep.max_bytes = settings.size("keep.max_bytes")?;
    config.http = match settings.address("http.listen")? {
        None => HttpListen::Off,
        // Nobody chose it: a second coordinator on the host need not care.
        Some(address) if settings.is_default("http.listen") => HttpListen::IfFree(address),
        Some(address) => HttpListen::At(address),
    };
    set(&mut config.heartbeat_every, settings.time("heartbeat_every")?);
    set(&mut config.lease_ttl, settings.time("lease_ttl")?);
    config.tokens = secrets::tokens(settings)?;
    config.canary = match settings.time("canary.every")? {
        None => None,
        Some(every) => {
            let files = plan_files::read(settings.text("canary.plan")?.unwrap_or("canary"))?;
            let workloads = files.workloads.into_iter().map(|file| (file.name, file.toml));
            Some(CanaryPlan { every, plan_toml: files.plan_toml, workloads: workloads.collect() })
        }
    };
    anyhow::ensure!(
        config.lease_ttl >= 2 * config.heartbeat_every,
        Coded::usage(
            "`lease_ttl` is less than twice `heartbeat_every`: one late heartbeat would make an agent unreachable"
        )
    );
    Ok(config)
}

/// Who is told of what.
fn notify(settings: &Settings) -> anyhow::Result<NotifyConfig> {
    let listen = settings.text("http.listen")?.filter(|listen| *listen != "off");
    let link_base = match settings.text("http.url")? {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => listen.map(|listen| format!("http://{listen}")).unwrap_or_default(),
    };
    let mut targets = Vec::new();
    for name in settings.names("webhook") {
        let at = |key: &str| format!("webhook.{name}.{key}");
        let format = match settings.text(&at("format"))? {
            Some("slack") => Format::Slack,
            _ => Format::Json,
        };
        let url = settings.text(&at("url"))?.unwrap_or_default().to_owned();
        let secret = secret(settings, &at("secret_file"))?;
        let channel = Channel::Webhook(Webhook { url, format, secret });
        targets.push(Target { name: name.to_owned(), on: on(settings, &at("on"))?, channel });
    }
    for name in settings.names("mail") {
        let at = |key: &str| format!("mail.{name}.{key}");
        if targets.iter().any(|target| target.name == name) {
            return Err(
                Coded::usage(format!("'{name}' is the name of a webhook and of a mail")).into()
            );
        }
        let (security, port) = match settings.text(&at("security"))? {
            Some("none") => (Security::None, 25),
            Some("tls") => (Security::Tls, 465),
            _ => (Security::StartTls, 587),
        };
        let server = settings.text(&at("server"))?.unwrap_or_default();
        let (host, port) = match server.rsplit_once(':') {
            None => (server, port),
            Some((host, port)) => (
                host,
                port.parse().map_err(|_| {
                    Coded::usage(format!("`{}`: '{server}' is not HOST or HOST:PORT", at("server")))
                })?,
            ),
        };
        let user = settings.text(&at("user"))?.map(str::to_owned);
        let login = match (user, secret(settings, &at("password_file"))?) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user, password)),
            _ => {
                let text =
                    format!("[mail.{name}] needs both `user` and `password_file`, or none of them");
                return Err(Coded::usage(text).into());
            }
        };
        let to = settings.texts(&at("to"))?;
        if to.is_empty() {
            return Err(Coded::usage(format!("`{}` is empty", at("to"))).into());
        }
        let from = settings.text(&at("from"))?.unwrap_or_default().to_owned();
        let mail = Mail { host: host.to_owned(), port, security, login, from, to };
        let channel = Channel::Mail(mail);
        targets.push(Target { name: name.to_owned(), on: on(settings, &at("on"))?, channel });
    }
    let agent_lost_after = settings.time("notify.agent_lost_after")?.unwrap_or_default();
    Ok(NotifyConfig { targets, link_base, agent_lost_after })
}

/// Kinds of messages.
fn on(settings: &Settings, path: &str) -> anyhow::Result<Vec<String>> {
    let chosen = settings.texts(path)?;
    let known = NoticeKind::CHOICE.map(NoticeKind::label);
    for word in &chosen {
        if !known.contains(&word.as_str()) {
            let hint = hint(word, known);
            return Err(
                Coded::usage(format!("`{path}`: nobody can be told of '{word}'{hint}")).into()
            );
        }
    }
    Ok(chosen)
}

fn secret(settings: &Settings, path: &str) -> anyhow::Result<Option<Secret>> {
    Ok(secrets::read(settings, path)?.map(Secret::new))
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Daemon, resolve};

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_code() {
        let settings = resolve::resolve(Daemon::Coordinator, None, |_| None, Vec::new()).unwrap();
        let of_table = config(&settings).unwrap();
        let mut of_code = CoordinatorConfig::new(of_table.data_dir.clone());
        of_code.listen = Some("127.0.0.1:7420".parse().unwrap());
        of_code.http = HttpListen::IfFree("127.0.0.1:7421".parse().unwrap());
        of_code.notify.link_base = "http://127.0.0.1:7421".to_owned();
        of_code.notify.agent_lost_after = std::time::Duration::from_secs(900);
        of_code.socket.clone_from(&of_table.socket);
        assert_eq!(of_table, of_code);
    }

    fn refused(text: &str) -> String {
        let settings =
            resolve::resolve(Daemon::Coordinator, Some(("c.toml", text)), |_| None, Vec::new());
        settings.and_then(|settings| config(&settings)).unwrap_err().to_string()
    }

    #[test]
    fn targets_are_read_and_what_they_lack_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, " key\n").unwrap();
        let text = format!(
            "[webhook.ci]\nurl = \"https://x/y\"\nsecret_file = \"{}\"\n[webhook.chat]\nurl = \"http://z\"\nformat = \"slack\"\non = [\"fail\"]\n\
             [mail.dev]\nserver = \"m:2525\"\nsecurity = \"none\"\nfrom = \"a@b.c\"\nto = [\"d@e.f\"]\n",
            secret.display()
        );
        let settings =
            resolve::resolve(Daemon::Coordinator, Some(("c.toml", &text)), |_| None, Vec::new())
                .unwrap();
        let targets = config(&settings).unwrap().notify.targets;
        let names: Vec<_> = targets.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["chat", "ci", "dev"]);
        assert_eq!(targets[0].on, ["fail"]);
        assert_eq!(targets[1].on.len(), 5);
        assert!(
            matches!(&targets[1].channel, Channel::Webhook(hook) if hook.secret.as_ref().unwrap().expose() == "key")
        );
        assert!(matches!(&targets[2].channel, Channel::Mail(mail) if mail.port == 2525));
        let shown: Vec<_> =
            settings.iter().map(|(path, setting)| format!("{path} {}", setting.shown())).collect();
        assert!(!shown.join("\n").contains("key\n"));

        assert_eq!(
            refused("[webhook.x]\nformat = \"json\"\n"),
            "c.toml:1: [webhook.x] lacks `url`"
        );
        assert!(
            refused("[webhook.x]\nurl = \"http://y\"\non = [\"fial\"]\n")
                .contains("did you mean 'fail'?")
        );
        assert!(refused("[webhook.X]\nurl = \"http://y\"\n").contains("is no name"));
        let lacks = "[mail.m]\nserver = \"s\"\nfrom = \"a@b.c\"\nto = [\"d@e.f\"]\nuser = \"u\"\n";
        assert!(refused(lacks).contains("both `user` and `password_file`"));
    }

    #[test]
    fn the_health_check_is_the_plan_of_the_library() {
        let file = Some(("c.toml", "[canary]\nevery = \"12h\"\n"));
        let settings = resolve::resolve(Daemon::Coordinator, file, |_| None, Vec::new()).unwrap();
        let canary = config(&settings).unwrap().canary.unwrap();
        assert_eq!(canary.every.as_secs(), 12 * 3_600);
        assert!(!canary.workloads.is_empty());
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        let file = Some(("c.toml", "heartbeat_every = \"20s\"\n"));
        let settings = resolve::resolve(Daemon::Coordinator, file, |_| None, Vec::new()).unwrap();
        let said = config(&settings).unwrap_err().to_string();
        assert!(said.contains("less than twice `heartbeat_every`"), "{said}");
    }
}
