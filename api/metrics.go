package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"authd/zone"
)

// metrics counts requests of the API and shows what the node's parts count. The
// names of DNS metrics follow CoreDNS, so that its dashboards need another
// prefix only. No label has a customer's name: a million domains would be a
// million series.
type metrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	refused   *prometheus.CounterVec
	serve     http.HandlerFunc
}

func newMetrics(h *Handler) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "authd_api_requests_total", Help: "Requests to the API.",
		}, []string{"route", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "authd_api_request_duration_seconds", Help: "Time that requests to the API took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
		}, []string{"route"}),
	}
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "authd_api_refused_total", Help: "Connections closed and requests answered 429, by what there was too much of.",
	}, []string{"reason"})
	for _, reason := range []string{refusedConnections, refusedAddress, refusedWaiting, refusedRequests, refusedBodies, refusedStreams, refusedQueue} {
		m.refused.WithLabelValues(reason) // from the start, so that a first one is seen as a change
	}
	r := prometheus.NewRegistry()
	r.MustRegister(m.requests, m.durations, m.refused,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(h))
	m.serve = promhttp.HandlerFor(r, promhttp.HandlerOpts{DisableCompression: true}).ServeHTTP
	return m
}

func (m *metrics) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.durations.WithLabelValues(route).Observe(took.Seconds())
}

// collector reads counters and gauges of the node when it is asked.
type collector struct {
	replica Replica
	node    string
	dns     func() zone.Stats
	now     func() time.Time
	checks  func() []Check

	queries, responses, outcomes, dropped, truncated *prometheus.Desc
	overflowed                                       *prometheus.Desc
	durations, limited, cookies, open, connections   *prometheus.Desc
	index, leader, domains, tenants, pools, build    *prometheus.Desc
	problems, certificate, waiting, oldest           *prometheus.Desc
	check, shown                                     *prometheus.Desc
	shownEnd                                         func() (end time.Time, ok bool)
	version                                          string
	figures                                          []nodeFigure
	fleet                                            fleet
}

func newCollector(h *Handler) *collector {
	c := h.config
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("authd_"+name, help, labels, nil)
	}
	return &collector{
		replica: c.Replica, node: c.NodeID, dns: c.DNSStats, version: c.Version, figures: nodeFigures(), fleet: newFleet(), now: c.Now, checks: h.checks,
		queries:   desc("dns_requests_total", "DNS queries.", "proto", "family", "type"),
		responses: desc("dns_responses_total", "DNS responses.", "proto", "rcode"),
		outcomes:  desc("dns_outcomes_total", "What look-ups came to.", "proto", "outcome"),
		dropped:   desc("dns_dropped_total", "Datagrams that got no reply."),
		overflowed: desc("dns_overflowed_total",
			"UDP datagrams that the kernel dropped because they came faster than they were answered: a flood, or too few processors."),
		truncated: desc("dns_truncated_total", "Responses cut to TC."),
		durations: desc("dns_request_duration_seconds", "Time from reading the batch that a query came in to writing its replies.", "proto"),
		limited:   desc("dns_rate_limited_total", "Responses past a rate limit: answers cut to TC, errors without options.", "limit"),
		cookies:   desc("dns_cookies_total", "DNS queries by their cookie.", "cookie"),
		open:      desc("dns_tcp_connections", "Open TCP connections."),
		connections: desc("dns_tcp_connections_total",
			"TCP connections: accepted, evicted for a newer one, refused.", "event"),
		index:    desc("machine_index", "Log index of this node's state."),
		leader:   desc("raft_leader", "1 where this node leads."),
		domains:  desc("domains", "Claims, pending and leaving ones included."),
		tenants:  desc("tenants", "Tenants."),
		pools:    desc("pools", "Pools."),
		problems: desc("health_problems", "What is wrong with the node, as /health lists it."),
		certificate: desc("certificate_expiry_timestamp_seconds",
			"When this node's certificate ends; it is renewed at two thirds of its life."),
		shown: desc("api_certificate_expiry_timestamp_seconds",
			"When the API's certificate ends, where it is not the node's own."),
		shownEnd: h.certificateEnd,
		check:    desc("check_ok", "What /ready looks at: 1 where it is as it should be.", "check"),
		waiting:  desc("barrier_waiting", "On the leader: standby keys that a node has not been seen to answer.", "node"),
		oldest:   desc("barrier_oldest_seconds", "On the leader: how long the key has waited that waits longest; 0 where none does."),
		build:    desc("build_info", "The version running.", "version", "node"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.queries, c.responses, c.outcomes, c.dropped, c.overflowed, c.truncated,
		c.durations, c.limited, c.cookies, c.open, c.connections,
		c.index, c.leader, c.domains, c.tenants, c.pools, c.problems, c.certificate, c.waiting, c.oldest, c.build, c.check, c.shown,
	} {
		to <- d
	}
	for _, f := range c.figures {
		to <- f.desc
	}
	c.fleet.describe(to)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	m := c.replica.Machine()
	pools := 0
	for range m.Pools() {
		pools++
	}
	gauge(c.index, float64(m.Index()))
	gauge(c.domains, float64(m.DomainCount()))
	gauge(c.tenants, float64(m.TenantCount()))
	gauge(c.pools, float64(pools))
	gauge(c.problems, float64(len(c.replica.Health())))
	if end := c.replica.CertificateExpiry(); !end.IsZero() {
		gauge(c.certificate, float64(end.Unix()))
	}
	if end, ok := c.shownEnd(); ok {
		gauge(c.shown, float64(end.Unix()))
	}
	gauge(c.build, 1, c.version, c.node)
	for _, k := range c.checks() {
		ok := 0.0
		if k.OK {
			ok = 1
		}
		gauge(c.check, ok, k.Name)
	}
	waits, since := map[string]int{}, int64(0)
	for _, w := range c.replica.BarrierWaits() {
		if waits[w.Node]++; since == 0 || w.Since < since {
			since = w.Since
		}
	}
	age := 0.0
	for node, n := range waits {
		gauge(c.waiting, float64(n), node)
		age = max(0, float64(c.now().Unix()-since))
	}
	gauge(c.oldest, age)
	leads := 0.0
	if c.node != "" && c.replica.Leader() == c.node {
		leads = 1
	}
	gauge(c.leader, leads)
	figures := c.replica.Figures()
	for _, f := range c.figures {
		to <- prometheus.MustNewConstMetric(f.desc, f.kind, f.read(figures))
	}
	c.fleet.collect(to, m, c.now().Unix())
	if c.dns != nil {
		c.collectDNS(to, c.dns())
	}
}

func (c *collector) collectDNS(to chan<- prometheus.Metric, s zone.Stats) {
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counts := func(d *prometheus.Desc, of map[string]uint64, labels int) {
		for key, n := range of {
			count(d, n, append(strings.SplitN(key, "/", labels), "", "", "")[:labels]...)
		}
	}
	counts(c.queries, s.Queries, 3)
	counts(c.responses, s.Responses, 2)
	counts(c.outcomes, s.Outcomes, 2)
	counts(c.limited, s.Limited, 1)
	counts(c.cookies, s.Cookies, 1)
	count(c.dropped, s.Dropped)
	count(c.overflowed, s.Overflowed)
	count(c.truncated, s.Truncated)
	to <- prometheus.MustNewConstMetric(c.open, prometheus.GaugeValue, float64(s.Connections.Open))
	count(c.connections, s.Connections.Accepted, "accepted")
	count(c.connections, s.Connections.Evicted, "evicted")
	count(c.connections, s.Connections.Refused, "refused")
	for proto, d := range s.Durations {
		to <- histogram(c.durations, d, proto)
	}
}

// histogram turns buckets that each count for themselves into ones that count
// everything below their bound.
func histogram(desc *prometheus.Desc, d zone.Durations, labels ...string) prometheus.Metric {
	below, buckets := uint64(0), make(map[float64]uint64, len(d.Bounds))
	for i, n := range d.Counts {
		below += n
		if i < len(d.Bounds) {
			buckets[d.Bounds[i].Seconds()] = below
		}
	}
	return prometheus.MustNewConstHistogram(desc, below, d.Sum.Seconds(), buckets, labels...)
}
