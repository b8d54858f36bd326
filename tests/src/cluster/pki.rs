//! The authority of a cluster, its certificates and the kubeconfigs made of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::json;

/// Key type of everything here: made in a millisecond.
const KEY: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

/// Directory of an authority.
#[derive(Clone, Debug)]
pub struct Pki(PathBuf);

impl Pki {
    /// The authority that is there.
    #[must_use]
    pub fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Makes an authority and the key that signs service account tokens.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn make(directory: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&directory)?;
        let pki = Self(directory);
        let (key, certificate) = (pki.key("ca"), pki.certificate("ca"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=ca"]).args(KEY);
        run(command.arg("-keyout").arg(key).arg("-out").arg(certificate))?;
        let mut command = Command::new("openssl");
        // The API server does not read PKCS #8 of elliptic curves.
        command.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
        run(command.arg("-out").arg(pki.key("sa")))?;
        Ok(pki)
    }

    /// Issues a certificate for a client and server: `names` as openssl's `subjectAltName`.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn issue(
        &self,
        file: &str,
        common_name: &str,
        organization: &str,
        names: &[String],
    ) -> anyhow::Result<()> {
        let request = self.0.join(format!("{file}.csr"));
        let mut command = Command::new("openssl");
        command.args(["req", "-nodes", "-subj", &format!("/O={organization}/CN={common_name}")]);
        run(command.args(KEY).arg("-keyout").arg(self.key(file)).arg("-out").arg(&request))?;
        let mut extensions = "extendedKeyUsage=clientAuth,serverAuth\n".to_owned();
        if !names.is_empty() {
            extensions += &format!("subjectAltName={}\n", names.join(","));
        }
        let extension_file = self.0.join(format!("{file}.ext"));
        fs::write(&extension_file, extensions)?;
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", "30"]).arg("-in").arg(&request);
        command.arg("-CA").arg(self.certificate("ca")).arg("-CAkey").arg(self.key("ca"));
        // A serial number of its own for each, without a file that two would write at once.
        command.args(["-set_serial", &format!("0x{}", serial(file))]);
        command.arg("-extfile").arg(&extension_file).arg("-out").arg(self.certificate(file));
        run(&mut command)
    }

    /// Writes a kubeconfig for who has the certificate `file`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kubeconfig(&self, path: &Path, file: &str, server: &str) -> anyhow::Result<()> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "user"}}],
            "clusters": [{"name": "cluster", "cluster": {
                "server": server, "certificate-authority": self.certificate("ca"),
            }}],
            "users": [{"name": "user", "user": {
                "client-certificate": self.certificate(file), "client-key": self.key(file),
            }}],
        });
        fs::write(path, serde_json::to_vec_pretty(&config)?)
            .with_context(|| path.display().to_string())
    }

    /// Path of a certificate.
    #[must_use]
    pub fn certificate(&self, file: &str) -> PathBuf {
        self.0.join(format!("{file}.crt"))
    }

    /// Path of a private key.
    #[must_use]
    pub fn key(&self, file: &str) -> PathBuf {
        self.0.join(format!("{file}.key"))
    }
}

fn serial(file: &str) -> String {
    "1".to_owned() + &file.bytes().take(15).map(|byte| format!("{byte:02x}")).collect::<String>()
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().context("openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
