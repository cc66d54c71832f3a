//! Messages to people: real HTTP and SMTP receivers, also dead, slow and refusing ones.

use crate::scripted::{PATIENCE, Scripted, Stage, ended, frames, limits, plan};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pgsoak_coordinator::config::{
    Channel, Format, Mail, NotifyConfig, Secret, Security, Target, Webhook,
};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::wire;
use pgsoak_proto::wire::notify_client::NotifyClient;
use serde_json::Value;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::{net::TcpListener, net::TcpStream, time::timeout};

const SECRET: &str = "a shared key";

/// Requests: head in small letters, and body.
type Received = Arc<Mutex<Vec<(String, String)>>>;

/// An HTTP receiver that answers with `status`, which may be changed; 0: never.
struct Receiver {
    address: SocketAddr,
    received: Received,
    status: Arc<Mutex<u16>>,
}

impl Receiver {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Received::default();
        let status = Arc::new(Mutex::new(status));
        let (to, answers) = (Arc::clone(&received), Arc::clone(&status));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&to), Arc::clone(&answers)));
            }
        });
        Self { address, received, status }
    }

    fn bodies(&self) -> Vec<Value> {
        let received = self.received.lock().unwrap();
        received.iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect()
    }

    async fn until(&self, many: usize) -> Vec<Value> {
        let waiting = async {
            while self.received.lock().unwrap().len() < many {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("{many} messages are wanted, there are {:#?}", self.bodies());
        }
        self.bodies()
    }

    fn target(&self, name: &str, format: Format) -> Target {
        let webhook = Webhook {
            url: format!("http://{}/hook", self.address),
            format,
            secret: Some(Secret::new(SECRET.to_owned())),
        };
        target(name, Channel::Webhook(webhook))
    }
}

async fn serve(stream: TcpStream, to: Received, status: Arc<Mutex<u16>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().trim().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let answer = *status.lock().unwrap();
        to.lock().unwrap().push((head, String::from_utf8(body).unwrap()));
        if answer == 0 {
            std::future::pending::<()>().await;
        }
        let answer = format!("HTTP/1.1 {answer} x\r\ncontent-length: 2\r\n\r\nno");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn target(name: &str, channel: Channel) -> Target {
    let on = ["pass", "fail", "inconclusive", "infrastructure", "finding", "agent", "schedule"];
    Target { name: name.to_owned(), on: on.map(str::to_owned).to_vec(), channel }
}

fn told(targets: Vec<Target>) -> NotifyConfig {
    let link_base = "http://pages".to_owned();
    NotifyConfig { targets, link_base, agent_lost_after: Duration::ZERO }
}

async fn stage(notify: NotifyConfig) -> Stage {
    Stage::told(limits(), Duration::from_secs(20), notify).await
}

/// A run of one job that ends so.
async fn run(
    stage: &Stage,
    agent: &mut Scripted,
    key: &str,
    outcome: Outcome,
    reason: &str,
) -> String {
    let run = stage.submit(&plan(""), key).await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, [frames(1, 1), vec![ended(2, outcome, reason)]].concat()).await;
    agent.acknowledged(lease, 2).await;
    agent.say(pgsoak_proto::session::AgentMessage::Delivered(lease)).await;
    stage.finished(&run).await;
    // Its release.
    agent.next().await.unwrap();
    run
}

fn kinds(bodies: &[Value]) -> Vec<&str> {
    bodies.iter().map(|body| body["kind"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_failed_run_is_told_once_and_its_finding_only_when_it_is_new() {
    let receiver = Receiver::start(200).await;
    let mut stage = stage(told(vec![receiver.target("ci", Format::Json)])).await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let first = run(&stage, &mut agent, "1", Outcome::Failed, "the server ended by itself").await;
    let bodies = receiver.until(2).await;
    assert_eq!(kinds(&bodies), ["fail", "finding"], "{bodies:#?}");
    for body in &bodies {
        assert_eq!(body["class"], "product");
        assert_eq!(body["link"], format!("http://pages/runs/{first}"));
        assert!((1..=3).contains(&body["lines"].as_array().unwrap().len()), "{body}");
    }
    // Signed over time and body.
    for (head, body) in receiver.received.lock().unwrap().iter() {
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
        };
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("{}.{body}", header("x-pgsoak-timestamp")).as_bytes());
        let wanted: String =
            mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(header("x-pgsoak-signature"), format!("sha256={wanted}"));
    }
    // The same failure again, and again after a restart, is no news.
    run(&stage, &mut agent, "2", Outcome::Failed, "the server ended by itself").await;
    assert_eq!(kinds(&receiver.until(3).await), ["fail", "finding", "fail"]);
    stage.stop().await;
    stage.start().await;
    agent.connect(&stage.socket(), vec![]).await;
    run(&stage, &mut agent, "3", Outcome::Infrastructure, "no space left on the host").await;
    let bodies = receiver.until(4).await;
    assert_eq!(kinds(&bodies), ["fail", "finding", "fail", "infrastructure"]);
    assert_eq!(bodies[3]["class"], "infrastructure");
    stage.stop().await;
    assert_eq!(receiver.bodies().len(), 4);
}

#[tokio::test]
async fn a_receiver_that_refuses_gets_its_message_after_a_restart_once() {
    let receiver = Receiver::start(500).await;
    let mut stage = stage(told(vec![receiver.target("ci", Format::Slack)])).await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    run(&stage, &mut agent, "1", Outcome::Infrastructure, "no space left").await;
    receiver.until(1).await;
    let channel = crate::scripted::channel(&stage.socket()).await;
    let waiting = async {
        loop {
            let list =
                NotifyClient::new(channel.clone()).list_waiting(wire::ListWaitingRequest {}).await;
            let messages = list.unwrap().into_inner().messages;
            if messages.iter().any(|message| message.targets[0].tries > 0) {
                return messages;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let messages = timeout(PATIENCE, waiting).await.expect("the try is recorded");
    assert!(messages[0].targets[0].problem.contains("500"), "{messages:?}");
    stage.stop().await;
    *receiver.status.lock().unwrap() = 204;
    stage.start().await;
    let bodies = receiver.until(2).await;
    assert!(bodies[1]["text"].as_str().unwrap().contains("|Open the run>"), "{bodies:#?}");
    let ids: Vec<String> = receiver
        .received
        .lock()
        .unwrap()
        .iter()
        .map(|(head, _)| {
            head.lines().find(|line| line.starts_with("x-pgsoak-id")).unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids[0], ids[1], "a repeat has the number of the first");
    // Delivered is delivered, over another restart too.
    stage.stop().await;
    stage.start().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.bodies().len(), 2);
    stage.stop().await;
}

#[tokio::test]
async fn a_dead_and_a_silent_receiver_hold_up_neither_runs_nor_others() {
    let good = Receiver::start(200).await;
    let silent = Receiver::start(0).await;
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Receiver {
            address: listener.local_addr().unwrap(),
            received: Received::default(),
            status: Arc::default(),
        }
    };
    let targets = vec![
        dead.target("a-dead", Format::Json),
        silent.target("b-silent", Format::Json),
        good.target("c-good", Format::Json),
    ];
    let mut stage = stage(told(targets.clone())).await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    run(&stage, &mut agent, "1", Outcome::Infrastructure, "one").await;
    run(&stage, &mut agent, "2", Outcome::Infrastructure, "two").await;
    good.until(2).await;
    assert_eq!(silent.bodies().len(), 1, "the second waits for the first");
    let mut client = NotifyClient::new(crate::scripted::channel(&stage.socket()).await);
    let request = wire::TestTargetsRequest { target: "a-dead".to_owned() };
    let tested = client.test_targets(request).await.unwrap().into_inner().targets;
    assert!(!tested[0].problem.is_empty() && !tested[0].problem.contains("/hook"), "{tested:?}");
    let request = wire::TestTargetsRequest { target: "c-good".to_owned() };
    let tested = client.test_targets(request).await.unwrap().into_inner().targets;
    assert_eq!((tested.len(), tested[0].problem.as_str()), (1, ""));
    assert_eq!(kinds(&good.until(3).await)[2], "test");
    let request = wire::TestTargetsRequest { target: "nobody".to_owned() };
    let said = client.test_targets(request).await.unwrap_err();
    assert!(said.message().contains("known: a-dead, b-silent, c-good"), "{said}");
    stage.stop().await;
}

/// An SMTP server that takes everything; the mails' texts.
async fn smtp() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mails = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&mails);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                stream.write_all(b"220 test\r\n").await.unwrap();
                let mut line = String::new();
                let mut mail = None::<String>;
                while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
                    let said = std::mem::take(&mut line);
                    if let Some(text) = &mut mail {
                        if said == ".\r\n" {
                            kept.lock().unwrap().extend(mail.take());
                            stream.write_all(b"250 ok\r\n").await.unwrap();
                        } else {
                            text.push_str(&said);
                        }
                        continue;
                    }
                    let answer: &[u8] = match said.get(..4).unwrap_or_default() {
                        "DATA" => {
                            mail = Some(String::new());
                            b"354 go on\r\n"
                        }
                        "QUIT" => b"221 bye\r\n",
                        _ => b"250 ok\r\n",
                    };
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (address, mails)
}

#[tokio::test]
async fn mail_carries_the_lines_that_matter_and_a_link() {
    let (address, mails) = smtp().await;
    let mail = Mail {
        host: "127.0.0.1".to_owned(),
        port: address.port(),
        security: Security::None,
        login: None,
        from: "pgsoak <soak@example.org>".to_owned(),
        to: vec!["dev@example.org".to_owned(), "ops@example.org".to_owned()],
    };
    let mut stage = stage(told(vec![target("dev", Channel::Mail(mail))])).await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run =
        run(&stage, &mut agent, "1", Outcome::Infrastructure, "no space left on the host").await;
    let waiting = async {
        while mails.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("a mail");
    let mail = mails.lock().unwrap()[0].clone();
    assert!(mail.contains("Subject: [pgsoak] Infrastructure trouble in a run of t"), "{mail}");
    assert!(mail.contains("To: dev@example.org, ops@example.org"), "{mail}");
    assert!(mail.contains(&format!("http://pages/runs/{run}")), "{mail}");
    assert!(mail.contains("Message-ID: <") && mail.contains(".pgsoak@example.org>"), "{mail}");
    stage.stop().await;
    assert_eq!(mails.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_agent_that_stays_away_is_told_once_each_time() {
    let receiver = Receiver::start(200).await;
    let mut stage = stage(told(Vec::new())).await;
    // As a reload of the settings brings it.
    let targets = vec![receiver.target("ops", Format::Json)];
    let patience = Duration::from_millis(300);
    stage.reconfigure(NotifyConfig { agent_lost_after: patience, ..told(targets) }).await;
    let mut agent = Scripted::new("lab-1");
    agent.connect(&stage.socket(), vec![]).await;
    agent.disconnect();
    let bodies = receiver.until(1).await;
    assert_eq!(bodies[0]["title"], "Agent lab-1 is away");
    // It was said, and a restart does not say it again.
    stage.stop().await;
    stage.start().await;
    tokio::time::sleep(patience * 3).await;
    assert_eq!(receiver.bodies().len(), 1);
    agent.connect(&stage.socket(), vec![]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    agent.disconnect();
    assert_eq!(receiver.until(2).await.len(), 2);
    stage.stop().await;
}
