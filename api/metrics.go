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
	serve     http.HandlerFunc
}

func newMetrics(c Config) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "authd_api_requests_total", Help: "Requests to the API.",
		}, []string{"route", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "authd_api_request_duration_seconds", Help: "Time that requests to the API took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
		}, []string{"route"}),
	}
	r := prometheus.NewRegistry()
	r.MustRegister(m.requests, m.durations,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(c))
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

	queries, responses, outcomes, dropped, truncated *prometheus.Desc
	index, leader, domains, tenants, pools, build    *prometheus.Desc
	problems                                         *prometheus.Desc
	version                                          string
}

func newCollector(c Config) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("authd_"+name, help, labels, nil)
	}
	return &collector{
		replica: c.Replica, node: c.NodeID, dns: c.DNSStats, version: c.Version,
		queries:   desc("dns_requests_total", "DNS queries.", "proto", "family", "type"),
		responses: desc("dns_responses_total", "DNS responses.", "rcode"),
		outcomes:  desc("dns_outcomes_total", "What look-ups came to.", "outcome"),
		dropped:   desc("dns_dropped_total", "Datagrams that got no reply."),
		truncated: desc("dns_truncated_total", "Responses cut to TC."),
		index:     desc("machine_index", "Log index of this node's state."),
		leader:    desc("raft_leader", "1 where this node leads."),
		domains:   desc("domains", "Claims, pending and leaving ones included."),
		tenants:   desc("tenants", "Tenants."),
		pools:     desc("pools", "Pools."),
		problems:  desc("health_problems", "What is wrong with the node, as /health lists it."),
		build:     desc("build_info", "The version running.", "version", "node"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.queries, c.responses, c.outcomes, c.dropped, c.truncated,
		c.index, c.leader, c.domains, c.tenants, c.pools, c.problems, c.build,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	m := c.replica.Machine()
	tenants, pools := 0, 0
	for range m.Tenants("") {
		tenants++
	}
	for range m.Pools() {
		pools++
	}
	gauge(c.index, float64(m.Index()))
	gauge(c.domains, float64(m.DomainCount()))
	gauge(c.tenants, float64(tenants))
	gauge(c.pools, float64(pools))
	gauge(c.problems, float64(len(c.replica.Health())))
	gauge(c.build, 1, c.version, c.node)
	leads := 0.0
	if c.node != "" && c.replica.Leader() == c.node {
		leads = 1
	}
	gauge(c.leader, leads)
	if c.dns != nil {
		c.collectDNS(to, c.dns())
	}
}

func (c *collector) collectDNS(to chan<- prometheus.Metric, s zone.Stats) {
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for key, n := range s.Queries {
		labels := append(strings.SplitN(key, "/", 3), "", "", "")[:3]
		count(c.queries, n, labels...)
	}
	for rcode, n := range s.Responses {
		count(c.responses, n, rcode)
	}
	for outcome, n := range s.Outcomes {
		count(c.outcomes, n, outcome)
	}
	count(c.dropped, s.Dropped)
	count(c.truncated, s.Truncated)
}
