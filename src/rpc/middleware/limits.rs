//! Limits on how often somebody may call, as token buckets.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZero,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::keyed::DashMapStateStore,
};
use tonic::Code;

use crate::rpc::status::{ErrorReason, Problem};

/// How many seconds of calls may come at once.
const BURST_SECONDS: u32 = 2;
/// How many buckets there are before the networks of IPv6 share one for each /48, which is what one site has.
const FINE_BUCKETS: usize = 100_000;
/// How many there are before all addresses share one.
const MAX_BUCKETS: usize = 200_000;

/// How many calls pass between two counts of the buckets. Counting them locks every shard of the map for a moment.
const CALLS_BETWEEN_COUNTS: u64 = 1024;

/// Allows each key a number of calls a second. It may save up the calls of two seconds.
///
/// Memory holds a bucket for each key that called recently, until [`Self::forget_idle`]: the caller bounds the number of
/// keys.
#[derive(Debug)]
pub struct RateLimit<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    buckets: RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<C::Instant>>,
}

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// Creates a limit; none for 0 calls a second.
    pub fn new(calls_per_second: u32) -> Option<Self> {
        Self::with_clock(calls_per_second, DefaultClock::default())
    }
}

impl<K: Hash + Eq + Clone, C: Clock> RateLimit<K, C> {
    fn with_clock(calls_per_second: u32, clock: C) -> Option<Self> {
        let calls_per_second = NonZero::new(calls_per_second)?;
        let burst = calls_per_second.saturating_mul(NonZero::new(BURST_SECONDS)?);
        let quota = Quota::per_second(calls_per_second).allow_burst(burst);
        let buckets = RateLimiter::new(quota, DashMapStateStore::default(), clock);
        Some(Self { buckets })
    }

    /// Counts a call.
    ///
    /// # Errors
    /// How long to wait, if the call is one too many.
    pub fn check(&self, key: &K) -> Result<(), Duration> {
        let checked = self.buckets.check_key(key);
        checked.map_err(|not_until| not_until.wait_time_from(self.buckets.clock().now()))
    }

    /// Forgets the keys whose bucket is full again.
    pub fn forget_idle(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

/// The limit on calls from one address, as a gateway forwards it. Calls that no gateway forwarded are not limited: they
/// come from the deployment's own services, or through a balancer behind which all callers have one address.
#[derive(Debug)]
pub struct AddressLimit {
    limit: Option<RateLimit<IpAddr>>,
    calls: AtomicU64,
    /// How many there were at the last count.
    buckets: AtomicUsize,
}

impl AddressLimit {
    /// Creates a limit; 0 calls a second mean none.
    pub fn new(calls_per_second: u32) -> Self {
        Self {
            limit: RateLimit::new(calls_per_second),
            calls: AtomicU64::new(0),
            buckets: AtomicUsize::new(0),
        }
    }

    /// Counts a call that a gateway forwarded from this address.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED with RetryInfo.
    pub(super) fn check(&self, forwarded: Option<IpAddr>) -> Result<(), Problem> {
        let Some((limit, address)) = self.limit.as_ref().zip(forwarded) else {
            return Ok(());
        };
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if calls.is_multiple_of(CALLS_BETWEEN_COUNTS) {
            self.buckets.store(limit.buckets.len(), Ordering::Relaxed);
        }
        limit
            .check(&network(address, self.buckets.load(Ordering::Relaxed)))
            .map_err(|wait| {
                let message = "too many calls from this address; try again later";
                Problem::new(Code::ResourceExhausted, ErrorReason::ResourceExhausted, message)
                    .retry_after(wait)
            })
    }

    /// Forgets the addresses whose bucket is full again.
    pub fn forget_idle(&self) {
        if let Some(limit) = &self.limit {
            limit.forget_idle();
            self.buckets.store(limit.buckets.len(), Ordering::Relaxed);
        }
    }
}

/// Returns the key of an address while there are so many buckets: an IPv4 address itself, or the /64 of an IPv6 address, all of
/// which one host may use. With many buckets the keys get coarser, so that a site cannot use up memory with its many networks.
pub(super) fn network(address: IpAddr, buckets: usize) -> IpAddr {
    let host_bits = if buckets < FINE_BUCKETS { 64 } else { 80 };
    match address {
        _ if buckets >= MAX_BUCKETS => Ipv6Addr::UNSPECIFIED.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).into(),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_key_has_its_calls_a_second_and_a_burst_of_two_seconds() {
        let clock = FakeRelativeClock::default();
        let limit = RateLimit::with_clock(10, clock.clone()).unwrap();
        for _ in 0..20 {
            limit.check(&"a").unwrap();
        }
        let wait = limit.check(&"a").unwrap_err();
        assert!(
            wait > Duration::ZERO && wait <= Duration::from_millis(100),
            "{wait:?}"
        );
        limit.check(&"b").unwrap();
        clock.advance(wait);
        limit.check(&"a").unwrap();
        limit.check(&"a").unwrap_err();
    }

    #[test]
    fn keys_that_may_call_as_often_as_any_cost_no_memory() {
        let clock = FakeRelativeClock::default();
        let limit = RateLimit::with_clock(10, clock.clone()).unwrap();
        for key in 0..1000 {
            limit.check(&key).unwrap();
        }
        clock.advance(Duration::from_secs(3));
        limit.check(&0).unwrap();
        limit.forget_idle();
        assert_eq!(limit.buckets.len(), 1);
    }

    #[test]
    fn no_calls_a_second_mean_no_limit() {
        assert!(RateLimit::<u8>::new(0).is_none());
    }

    fn forwarded(address: &str) -> Option<IpAddr> {
        use crate::rpc::middleware::address::forwarded_address;

        let header = ("x-forwarded-for".parse().unwrap(), address.parse().unwrap());
        forwarded_address(&[header].into_iter().collect(), 1)
    }

    #[test]
    fn an_address_is_limited_and_no_other() {
        let limit = AddressLimit::new(1);
        let is_taken = |address: &str| limit.check(forwarded(address)).is_ok();
        assert!(is_taken("192.0.2.1") && is_taken("9.9.9.9, 192.0.2.1") && !is_taken("192.0.2.1"));
        assert!(is_taken("192.0.2.2"));
        assert!(is_taken("2001:db8::1") && is_taken("2001:db8::2") && !is_taken("[2001:db8::3]:443"));
        assert!(is_taken("2001:db8:0:1::1"));
        for _ in 0..5 {
            assert!(limit.check(None).is_ok() && is_taken("unknown"));
            AddressLimit::new(0).check(forwarded("192.0.2.1")).unwrap();
        }
    }

    #[test]
    fn the_number_of_buckets_is_looked_at_now_and_then() {
        let limit = AddressLimit::new(1000);
        let call = |number: u64| {
            let address = Ipv6Addr::from_bits(u128::from(number) << 64).into();
            limit.check(Some(address)).unwrap();
        };
        (0..CALLS_BETWEEN_COUNTS).for_each(call);
        assert_eq!(limit.buckets.load(Ordering::Relaxed), 0);
        call(CALLS_BETWEEN_COUNTS);
        let seen = limit.buckets.load(Ordering::Relaxed);
        assert_eq!(seen as u64, CALLS_BETWEEN_COUNTS);
    }

    #[test]
    fn a_site_with_many_networks_ends_the_buckets_of_no_other() {
        let (site, other) = ("2001:db8:0:1::1", "2001:db8:1:1::1");
        let key = |address: &str, buckets| network(address.parse().unwrap(), buckets);
        assert_ne!(key(site, 0), key("2001:db8:0:2::1", 0));
        assert_eq!(key(site, FINE_BUCKETS), key("2001:db8:0:2::1", FINE_BUCKETS));
        assert_ne!(key(site, FINE_BUCKETS), key(other, FINE_BUCKETS));
        assert_ne!(key("192.0.2.1", FINE_BUCKETS), key("192.0.2.2", FINE_BUCKETS));
        assert_eq!(key(site, MAX_BUCKETS), key("192.0.2.1", MAX_BUCKETS));
    }
}
