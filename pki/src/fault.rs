//! TLS failures in words: whose certificate, what about it, what to do.

use rustls::{AlertDescription, CertificateError, Error};

/// Why a handshake failed, as far as counting and advice go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsFault {
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not come.
    NotYetValid,
    /// Signed by another CA.
    UnknownIssuer,
    /// Revoked.
    Revoked,
    /// Valid, but for another name.
    NameMismatch,
    /// No certificate where one is needed.
    NoCertificate,
    /// The peer does not speak TLS, or not this version of it.
    NotTls,
    /// Anything else.
    Other,
}

impl TlsFault {
    /// Stable word for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Revoked => "revoked",
            Self::NameMismatch => "name-mismatch",
            Self::NoCertificate => "no-certificate",
            Self::NotTls => "not-tls",
            Self::Other => "other",
        }
    }

    /// Finds the fault in a rustls error: our own finding about the peer's certificate, or the
    /// peer's alert about ours.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(certificate) => Self::of_certificate(certificate),
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::PeerIncompatible(_)
            | Error::NoApplicationProtocol => Self::NotTls,
            _ => Self::Other,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::NameMismatch
            }
            _ => Self::Other,
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateExpired => Self::Expired,
            AlertDescription::UnknownCA | AlertDescription::DecryptError => Self::UnknownIssuer,
            AlertDescription::CertificateRevoked => Self::Revoked,
            AlertDescription::CertificateRequired => Self::NoCertificate,
            _ => Self::Other,
        }
    }

    /// Finds a rustls error inside an I/O error, as stream wrappers hand it on.
    #[must_use]
    pub fn of_io(error: &std::io::Error) -> Option<(Self, String)> {
        let inner = error.get_ref()?.downcast_ref::<Error>()?;
        Some((Self::of(inner), inner.to_string()))
    }
}
