//! A message by SMTP.

use crate::config::{Mail, Security};
use crate::domain::notice::Notice;
use crate::notify::{causes, text};
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

/// Sends it to all receivers in one mail.
pub(super) async fn send(mail: &Mail, notice: &Notice, link: Option<&str>) -> Result<(), String> {
    let message = message(mail, notice, link)?;
    // lettre's TLS uses the process's provider; somebody else may have installed one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = |wrap: fn(TlsParameters) -> Tls| {
        TlsParameters::new(mail.host.clone()).map(wrap).map_err(|error| causes(&error))
    };
    let tls = match mail.security {
        Security::None => Tls::None,
        Security::StartTls => tls(Tls::Required)?,
        Security::Tls => tls(Tls::Wrapper)?,
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.host)
        .port(mail.port)
        .tls(tls);
    if let Some((user, password)) = &mail.login {
        transport =
            transport.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
    }
    transport.build().send(message).await.map(drop).map_err(|error| causes(&error))
}

fn message(mail: &Mail, notice: &Notice, link: Option<&str>) -> Result<Message, String> {
    let mailbox = |address: &str| -> Result<Mailbox, String> {
        address.parse().map_err(|error| format!("'{address}' is no mail address: {error}"))
    };
    let from = mailbox(&mail.from)?;
    // The same in a repeat, so that mailboxes show it once.
    let id = format!("<{}.pgsoak@{}>", notice.id.0, from.email.domain());
    let mut message = Message::builder()
        .message_id(Some(id))
        .from(from)
        .subject(format!("[pgsoak] {}", notice.says.title));
    for to in &mail.to {
        message = message.to(mailbox(to)?);
    }
    message
        .header(ContentType::TEXT_PLAIN)
        .body(text(&notice.says, link) + "\n")
        .map_err(|error| causes(&error))
}
