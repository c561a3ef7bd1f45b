//! A TCP proxy in front of a database, which fails as networks do.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// What the proxy does with the bytes of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    Pass,
    /// Passes each piece after this time.
    Delay(Duration),
    /// Reads nothing: the network soon acknowledges nothing.
    Stall,
    /// Reads and discards.
    Swallow,
    /// Closes with a reset.
    Reset,
}

/// The state of the proxy.
#[derive(Clone, Debug)]
struct State {
    /// For connections of an earlier generation.
    existing: Traffic,
    /// For connections that were opened since the last change, and those to come.
    new: Traffic,
    generation: usize,
    server: SocketAddr,
    /// A connection passes nothing more after the COMMIT of a transaction in which this was sent, and is closed once the server
    /// has answered.
    lost_with: Option<String>,
}

/// A proxy. It ends, with its connections, when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    lost_answers: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy to a server.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = Arc::new(watch::Sender::new(State {
            existing: Traffic::Pass,
            new: Traffic::Pass,
            generation: 0,
            server,
            lost_with: None,
        }));
        let address = listener.local_addr().unwrap();
        let (mut tasks, lost_answers) = (JoinSet::new(), Arc::default());
        tasks.spawn(accept(listener, state.clone(), Arc::clone(&lost_answers)));
        Self {
            address,
            state,
            lost_answers,
            _tasks: tasks,
        }
    }

    /// Returns the URL of a database, through the proxy.
    pub fn url(&self, database: &str) -> String {
        let mut url: url::Url = database.parse().unwrap();
        url.set_ip_host(self.address.ip()).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url.into()
    }

    /// Changes what happens to the connections that exist, and to those opened from now on.
    pub fn set(&self, existing: Traffic, new: Traffic) {
        self.state.send_modify(|state| {
            (state.existing, state.new) = (existing, new);
            state.generation += 1;
        });
    }

    /// Loses the server's answers to the COMMITs of transactions in which this text was sent, and closes their connections.
    pub fn lose_commits_with(&self, text: Option<&str>) {
        self.state
            .send_modify(|state| state.lost_with = text.map(str::to_owned));
    }

    /// Returns how many answers were lost.
    pub fn lost_answers(&self) -> usize {
        self.lost_answers.load(Ordering::Relaxed)
    }

    /// Leads new connections to another server.
    pub fn lead_to(&self, server: SocketAddr) {
        self.state.send_modify(|state| state.server = server);
    }
}

async fn accept(listener: TcpListener, state: Arc<watch::Sender<State>>, lost_answers: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (state, lost_answers) = (state.subscribe(), lost_answers.clone());
        connections.spawn(async move {
            let _ = serve(client, state, &lost_answers).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(
    client: TcpStream,
    state: watch::Receiver<State>,
    lost_answers: &AtomicUsize,
) -> io::Result<()> {
    let State {
        server, generation, ..
    } = *state.borrow();
    let traffic = move |state: &State| match state.generation > generation {
        true => state.existing,
        false => state.new,
    };
    let server = TcpStream::connect(server).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut until_reset = state.clone();
    let said_last_words = tokio::select! {
        _ = copy(&mut from_client, &mut to_server, state.clone(), traffic) => {
            state.borrow().lost_with.is_some()
        }
        _ = copy(&mut from_server, &mut to_client, state.clone(), traffic) => false,
        _ = until_reset.wait_for(|state| traffic(state) == Traffic::Reset) => {
            to_client.as_ref().set_zero_linger()?;
            false
        }
    };
    if said_last_words {
        let length = from_server.read(&mut [0; 1024]).await?;
        lost_answers.fetch_add(usize::from(length > 0), Ordering::Relaxed);
    }
    Ok(())
}

async fn copy(
    from: &mut tcp::OwnedReadHalf,
    to: &mut tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    traffic: impl Fn(&State) -> Traffic,
) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    let mut was_sent = false;
    loop {
        state
            .wait_for(|state| traffic(state) != Traffic::Stall)
            .await
            .map_err(io::Error::other)?;
        let read = tokio::select! {
            read = from.read(&mut piece) => read?,
            _ = state.changed() => continue,
        };
        if read == 0 {
            return Ok(());
        }
        let now = traffic(&state.borrow());
        match now {
            Traffic::Swallow => continue,
            Traffic::Delay(delay) => sleep(delay).await,
            // What was read before the stall goes on after it.
            Traffic::Stall => {
                let moving = state.wait_for(|state| traffic(state) != Traffic::Stall);
                moving.await.map_err(io::Error::other)?;
            }
            Traffic::Pass | Traffic::Reset => {}
        }
        to.write_all(&piece[..read]).await?;
        let lost_with = state.borrow().lost_with.clone();
        was_sent |= lost_with.is_some_and(|text| holds(&piece[..read], &text));
        // BEGIN holds the word, too.
        if was_sent && holds(&piece[..read], "COMMIT\0") {
            return Ok(());
        }
    }
}

fn holds(piece: &[u8], text: &str) -> bool {
    piece.windows(text.len()).any(|window| window == text.as_bytes())
}
