//! Lua scripts: sent by digest, and whole to a server that doesn't know them yet, such as one that
//! was restarted. Whole ones go to the node of their keys alone, so that they work while another
//! node of a cluster is away.

use redis::aio::ConnectionLike;
use redis::{Arg, Cmd, FromRedisValue, RedisResult, ServerErrorKind, ToRedisArgs};

/// A script.
pub struct Script {
    code: &'static str,
    digest: String,
}

impl Script {
    pub fn new(code: &'static str) -> Self {
        let digest = redis::Script::new(code).get_hash().to_owned();
        Self { code, digest }
    }

    /// A call with `keys`, all of one slot. Arguments follow.
    pub fn call(
        &self,
        keys: impl IntoIterator<Item = String, IntoIter: ExactSizeIterator>,
    ) -> ScriptCall<'_> {
        let keys = keys.into_iter();
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.digest).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        ScriptCall {
            script: self,
            command,
        }
    }
}

/// A call that is being put together.
pub struct ScriptCall<'s> {
    script: &'s Script,
    command: Cmd,
}

impl ScriptCall<'_> {
    #[must_use]
    pub fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.command.arg(argument);
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// What Redis says. A call of which the answer was lost may have been done.
    pub async fn run<T: FromRedisValue>(
        &self,
        connection: &mut impl ConnectionLike,
    ) -> RedisResult<T> {
        match self.command.query_async(connection).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                self.whole().query_async(connection).await
            }
            reply => reply,
        }
    }

    fn whole(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(self.script.code);
        for argument in self.command.args_iter().skip(2) {
            if let Arg::Simple(argument) = argument {
                command.arg(argument);
            }
        }
        command
    }
}
