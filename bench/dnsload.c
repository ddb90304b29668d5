// dnsload: DNS load generator, one thread: UDP by sendmmsg/recvmmsg, or with -T N
// pipelined TCP with N queries a connection.
// Every answer is checked: id, question echoed octet for octet, QR and AA, no TC,
// rcode, at least one answer record (NXDOMAIN and none for names that start with "nx-").
// Reads dnsperf's "name TYPE" lines.  Sends EDNS0, DO=0, 1232 bytes.
// With -P the server's CPU time (utime+stime of those processes) is taken over the
// same window as the counts, so "cpu us/query" needs no second tool.
// Prints one line of key=value.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAXB 64
#define RBUF 2048
struct query { uint32_t off; uint16_t len, qlen; }; // qlen: question's length; offset into arena
struct slot { int64_t sent; uint32_t q; uint16_t id; uint8_t busy; };

static struct query *qs;
static unsigned char *arena;
static size_t nq, arena_n, arena_cap;

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int qtype(const char *s)
{
	static const struct { const char *n; int t; } ty[] = {{"A", 1}, {"NS", 2}, {"CNAME", 5}, {"SOA", 6},
		{"MX", 15}, {"TXT", 16}, {"AAAA", 28}, {"CAA", 257}};
	for (size_t i = 0; i < sizeof ty / sizeof *ty; i++)
		if (!strcasecmp(s, ty[i].n))
			return ty[i].t;
	errx(1, "unknown type %s", s);
}

static void load(const char *file)
{
	FILE *f = fopen(file, "r");
	char name[300], type[20];
	size_t cap = 0;
	if (!f)
		err(1, "%s", file);
	while (fscanf(f, "%299s %19s", name, type) == 2) {
		if (nq == cap)
			qs = realloc(qs, (cap = cap ? cap * 2 : 1 << 16) * sizeof *qs);
		if (arena_n + 512 > arena_cap)
			arena = realloc(arena, arena_cap = arena_cap ? arena_cap * 2 : 1 << 24);
		unsigned char *p = arena + arena_n, *q = p;
		memcpy(q, "\0\0\0\0\0\1\0\0\0\0\0\1", 12); // QD=1, AR=1, RD=0
		q += 12;
		for (char *s = name; *s;) {
			size_t l = strcspn(s, ".");
			*q++ = l;
			memcpy(q, s, l);
			q += l;
			s += l + (s[l] == '.');
		}
		int t = qtype(type);
		memcpy(q, (unsigned char[]){0, t >> 8, t, 0, 1}, 5);
		q += 5;
		int qlen = q - p - 12;
		memcpy(q, "\0\0\x29\x04\xd0\0\0\0\0\0\0", 11); // OPT, 1232 bytes
		q += 11;
		qs[nq++] = (struct query){arena_n, q - p, qlen};
		arena_n += q - p;
	}
	fclose(f);
	if (!nq)
		errx(1, "no queries");
}

static int pids[256], npid;
static double cputime(double *sys) // seconds of the watched processes, and the kernel's share
{
	double s = 0, hz = sysconf(_SC_CLK_TCK);
	*sys = 0;
	for (int i = 0; i < npid; i++) {
		char path[64], b[1024];
		snprintf(path, sizeof path, "/proc/%d/stat", pids[i]);
		int fd = open(path, O_RDONLY);
		ssize_t n = fd < 0 ? 0 : read(fd, b, sizeof b - 1);
		if (fd >= 0)
			close(fd);
		if (n <= 0)
			continue;
		b[n] = 0;
		unsigned long u, k;
		if (sscanf(strrchr(b, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &u, &k) == 2)
			s += (u + k) / hz, *sys += k / hz;
	}
	return s;
}

static double owncpu(void)
{
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

// Latency histogram: 1/16-octave buckets of nanoseconds.
static uint64_t hist[64 * 16];
static void observe(int64_t ns)
{
	int e = 63 - __builtin_clzll(ns | 16);
	hist[e * 16 + ((ns >> (e - 4)) & 15)]++;
}
static double quantile(double p)
{
	uint64_t n = 0, c = 0;
	for (int i = 0; i < 1024; i++)
		n += hist[i];
	for (int i = 0; i < 1024; i++)
		if ((c += hist[i]) > p * n || (c == n && n))
			return (double)(((uint64_t)(16 + i % 16)) << (i / 16)) / 16 / 1000;
	return 0;
}

struct totals { uint64_t ok, bad, lost, stray, bytes; double latsum; };

// An interrupt ends the measuring, and what was measured is reported.
static volatile sig_atomic_t interrupted;
static void interrupt(int sig) { interrupted = sig; }

// judge checks an answer to q and says whether it is right; stray answers are not for us.
static int is_answer(const struct query *q, const unsigned char *p, unsigned len)
{
	return len >= 12u + q->qlen && !memcmp(p + 12, arena + q->off + 12, q->qlen);
}
static int is_right(const struct query *q, const unsigned char *p)
{
	const unsigned char *w = arena + q->off;
	int nx = w[12] > 3 && !memcmp(w + 13, "nx-", 3), an = p[6] << 8 | p[7];
	// QR and AA set, TC clear, the right rcode, an answer
	return (p[2] & 0x86) == 0x84 && (p[3] & 15) == (nx ? 3 : 0) && (an == 0) == nx;
}

// TCP: a connection sends up to its share of the window, takes its answers in
// any order, and is closed and replaced after so many queries.
#define TBUF (1 << 18)
#define TWIN 256
struct conn {
	int fd, sent, got, inlen, outlen, outoff;
	uint32_t q[TWIN];
	int64_t at[TWIN]; // when sent, by id modulo TWIN; 0: not outstanding
	unsigned char in[TBUF], out[TBUF];
};

static uint64_t opened;
static void dial(struct conn *c, struct sockaddr_in *a)
{
	// Many source addresses, so that closed connections do not use up the ports.
	struct sockaddr_in from = {.sin_family = AF_INET};
	from.sin_addr.s_addr = htonl(0x7f000100 + opened++ % 64);
	int one = 1;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (bind(c->fd, (void *)&from, sizeof from) || (connect(c->fd, (void *)a, sizeof *a) && errno != EINPROGRESS))
		err(1, "connect");
	c->sent = c->got = c->inlen = c->outlen = c->outoff = 0;
	memset(c->at, 0, sizeof c->at);
}

// pump moves one connection on and says whether anything moved.
static int pump(struct conn *c, struct sockaddr_in *a, int share, int each, uint64_t *qi, struct totals *t)
{
	int moved = 0;
	int64_t now_ = now();
	while (c->sent < each && c->sent - c->got < share && c->outlen + 512 < TBUF) {
		struct query *q = &qs[*qi % nq];
		c->q[c->sent % TWIN] = (*qi)++ % nq;
		c->at[c->sent % TWIN] = now_;
		unsigned char *o = c->out + c->outlen;
		o[0] = q->len >> 8, o[1] = q->len;
		memcpy(o + 2, arena + q->off, q->len);
		o[2] = c->sent >> 8, o[3] = c->sent;
		c->outlen += 2 + q->len;
		c->sent++;
	}
	if (c->outlen > c->outoff) {
		ssize_t n = send(c->fd, c->out + c->outoff, c->outlen - c->outoff, MSG_NOSIGNAL);
		if (n > 0) {
			moved = 1;
			if ((c->outoff += n) == c->outlen)
				c->outoff = c->outlen = 0;
		}
	}
	ssize_t n = recv(c->fd, c->in + c->inlen, TBUF - c->inlen, 0);
	int dead = n == 0 || (n < 0 && errno != EAGAIN && errno != ENOTCONN);
	if (n > 0) {
		moved = 1;
		now_ = now();
		c->inlen += n;
	}
	int at = 0;
	while (c->inlen - at >= 2) {
		int len = c->in[at] << 8 | c->in[at + 1];
		if (c->inlen - at < 2 + len)
			break;
		unsigned char *p = c->in + at + 2;
		int id = p[0] << 8 | p[1];
		struct query *q = &qs[c->q[id % TWIN]];
		if (len < 12 || id >= c->sent || !c->at[id % TWIN] || !is_answer(q, p, len)) {
			t->stray++;
		} else {
			is_right(q, p) ? t->ok++ : t->bad++;
			t->bytes += len;
			t->latsum += now_ - c->at[id % TWIN];
			observe(now_ - c->at[id % TWIN]);
			c->at[id % TWIN] = 0;
			c->got++;
		}
		at += 2 + len;
	}
	memmove(c->in, c->in + at, c->inlen -= at);
	if (dead)
		t->lost += c->sent - c->got;
	if (dead || c->got == each) {
		close(c->fd);
		dial(c, a);
		moved = 1;
	}
	return moved;
}

static void report(struct totals *t, double d, double cpu, double sys, double own)
{
	uint64_t n = t->ok + t->bad;
	printf("qps=%.0f ok=%lu bad=%lu lost=%lu stray=%lu avg_us=%.1f p50_us=%.1f p99_us=%.1f p999_us=%.1f max_us=%.1f size=%.0f own_cpu=%.0f%%",
	       n / d, t->ok, t->bad, t->lost, t->stray, n ? t->latsum / n / 1000 : 0, quantile(.5), quantile(.99), quantile(.999), quantile(1),
	       n ? (double)t->bytes / n : 0, own / d * 100);
	if (npid)
		printf(" srv_cpu=%.0f%% us_per_q=%.2f sys_per_q=%.2f", cpu / d * 100, n ? cpu / n * 1e6 : 0,
		       n ? sys / n * 1e6 : 0);
	printf("\n");
}

static void tcp(struct sockaddr_in *a, int nsock, int window, int each, double secs, double warm)
{
	struct conn *c = calloc(nsock, sizeof *c);
	struct pollfd *pf = calloc(nsock, sizeof *pf);
	int share = window / nsock < 1 ? 1 : window / nsock > TWIN ? TWIN : window / nsock;
	struct totals t = {0};
	uint64_t qi = 0;
	double cpu0 = 0, sys0 = 0, sys, own0 = 0;
	for (int i = 0; i < nsock; i++)
		dial(&c[i], a);
	int64_t begin = now() + warm * 1e9;
	for (int warming = 1;;) {
		int64_t at = now();
		if (warming && at >= begin) {
			warming = 0;
			memset(hist, 0, sizeof hist);
			t = (struct totals){0};
			cpu0 = cputime(&sys0), own0 = owncpu();
			begin = now();
		}
		if (!warming && at >= begin + (int64_t)(secs * 1e9))
			break;
		int moved = 0;
		for (int i = 0; i < nsock; i++)
			moved |= pump(&c[i], a, share, each, &qi, &t);
		if (!moved) {
			for (int i = 0; i < nsock; i++)
				pf[i] = (struct pollfd){.fd = c[i].fd, .events = POLLIN};
			poll(pf, nsock, 1);
		}
	}
	double d = (now() - begin) / 1e9, cpu = cputime(&sys) - cpu0;
	report(&t, d, cpu, sys - sys0, owncpu() - own0);
}

int main(int argc, char **argv)
{
	const char *addr = "127.0.0.1", *file = NULL, *source = NULL;
	int port = 53, nsock = 16, window = 512, batch = 32, check = 1, each = 0, o;
	double secs = 5, warm = 1, rate = 0;
	while ((o = getopt(argc, argv, "s:p:d:c:q:b:l:w:Q:P:T:B:n")) != -1)
		switch (o) {
		case 's': addr = optarg; break;
		case 'p': port = atoi(optarg); break;
		case 'd': file = optarg; break;
		case 'c': nsock = atoi(optarg); break;   // sockets (source ports)
		case 'q': window = atoi(optarg); break;  // outstanding queries in all
		case 'b': batch = atoi(optarg); break;   // messages a syscall
		case 'l': secs = atof(optarg); break;    // measured seconds, after
		case 'w': warm = atof(optarg); break;    // seconds of warm-up
		case 'Q': rate = atof(optarg); break;    // offered queries a second, 0: closed loop
		case 'T': each = atoi(optarg); break;    // TCP, queries a connection
		case 'B': source = optarg; break;        // UDP: socket i is bound to this address + 256 i, a /24 each
		case 'n': check = 0; break;              // don't check rcode and answer count
		case 'P': for (char *s = strtok(optarg, ","); s && npid < 256; s = strtok(NULL, ",")) pids[npid++] = atoi(s); break;
		default: errx(2, "usage: dnsload -d FILE [-s addr] [-p port] [-c socks] [-q window] [-b batch] [-l secs] [-w warm] [-Q qps] [-P pid,..] [-T queries] [-B source] [-n]");
		}
	if (!file)
		errx(2, "-d FILE is missing");
	if (batch > MAXB)
		batch = MAXB;
	load(file);
	signal(SIGINT, interrupt);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, addr, &a.sin_addr);
	if (each > 0) {
		tcp(&a, nsock, window, each, secs, warm);
		return 0;
	}
	int per = 1; // slots a socket: a power of two, found back from the id's low bits
	while (per * 2 <= window / nsock)
		per *= 2;
	struct slot *slots = calloc((size_t)nsock * per, sizeof *slots);
	int *next = calloc(nsock, sizeof *next), *busy = calloc(nsock, sizeof *busy);
	struct pollfd *pf = calloc(nsock, sizeof *pf);
	for (int i = 0; i < nsock; i++) {
		int b = 4 << 20;
		pf[i] = (struct pollfd){.fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), .events = POLLIN};
		setsockopt(pf[i].fd, SOL_SOCKET, SO_RCVBUF, &b, sizeof b);
		setsockopt(pf[i].fd, SOL_SOCKET, SO_SNDBUF, &b, sizeof b);
		struct sockaddr_in from = {.sin_family = AF_INET};
		if (source && (inet_pton(AF_INET, source, &from.sin_addr) != 1 ||
			       (from.sin_addr.s_addr = htonl(ntohl(from.sin_addr.s_addr) + 256 * i),
				bind(pf[i].fd, (void *)&from, sizeof from))))
			err(1, "bind %s", source);
		if (connect(pf[i].fd, (void *)&a, sizeof a))
			err(1, "connect");
	}
	static unsigned char rb[MAXB][RBUF];
	static struct mmsghdr rm[MAXB], sm[MAXB];
	static struct iovec rv[MAXB], sv[2 * MAXB];
	static unsigned char ids[MAXB][2];
	for (int i = 0; i < MAXB; i++) {
		rv[i] = (struct iovec){rb[i], RBUF};
		rm[i].msg_hdr = (struct msghdr){.msg_iov = &rv[i], .msg_iovlen = 1};
		sv[2 * i] = (struct iovec){ids[i], 2};
		sm[i].msg_hdr = (struct msghdr){.msg_iov = &sv[2 * i], .msg_iovlen = 2};
	}
	struct totals all = {0};
	uint64_t qi = 0;
	double cpu0 = 0, sys0 = 0, sys = 0, own0 = 0;
	int64_t start = now(), t = start, begin = start + warm * 1e9, end = begin + secs * 1e9, sweep = start + 250000000;
	int64_t rate0 = start;
	uint64_t ratesent = 0;
	int warming = 1;
	for (;;) {
		t = now();
		if (warming && t >= begin) {
			warming = 0;
			memset(hist, 0, sizeof hist);
			all = (struct totals){0};
			cpu0 = cputime(&sys0), own0 = owncpu();
			begin = t = now();
			end = begin + secs * 1e9;
		}
		if (t >= end || interrupted)
			break;
		int progress = 0;
		int64_t quota = 1 << 30;
		if (rate > 0) {
			quota = (t - rate0) / 1e9 * rate - ratesent;
			if (quota > window) { // fell behind: don't burst to catch up
				ratesent += quota - window;
				quota = window;
			}
		}
		for (int i = 0; i < nsock; i++) {
			struct slot *sl = slots + (size_t)i * per;
			if (busy[i]) {
				int n = recvmmsg(pf[i].fd, rm, batch, MSG_DONTWAIT, NULL);
				if (n > 0) {
					progress = 1;
					t = now();
				}
				for (int k = 0; k < n; k++) {
					unsigned char *p = rb[k];
					unsigned len = rm[k].msg_len;
					uint16_t id = p[0] << 8 | p[1];
					struct slot *s = &sl[id & (per - 1)];
					struct query *q = &qs[s->q];
					if (!s->busy || s->id != id || !is_answer(q, p, len)) {
						all.stray++;
						continue;
					}
					s->busy = 0;
					busy[i]--;
					if (check && !is_right(q, p))
						all.bad++;
					else
						all.ok++;
					all.bytes += len;
					all.latsum += t - s->sent;
					observe(t - s->sent);
				}
			}
			int n = 0;
			while (n < batch && busy[i] < per && quota > 0) {
				struct slot *s = &sl[next[i]];
				next[i] = (next[i] + 1) & (per - 1);
				if (s->busy)
					break; // an old one is still out: keep order, wait for it or its timeout
				s->busy = 1;
				busy[i]++;
				quota--;
				s->id += per; // new generation, same slot bits
				s->id = (s->id & ~(per - 1)) | (s - sl);
				s->q = qi++ % nq;
				s->sent = t;
				struct query *q = &qs[s->q];
				ids[n][0] = s->id >> 8, ids[n][1] = s->id;
				sv[2 * n + 1] = (struct iovec){arena + q->off + 2, q->len - 2};
				n++;
			}
			for (int k = 0, r; k < n; k += r) {
				r = sendmmsg(pf[i].fd, sm + k, n - k, 0);
				if (r <= 0)
					r = 1; // lost; the timeout finds it
			}
			if (n) {
				progress = 1;
				ratesent += n;
			}
		}
		if (t > sweep) {
			sweep = t + 250000000;
			for (int i = 0; i < nsock * per; i++)
				if (slots[i].busy && t - slots[i].sent > 1000000000) {
					slots[i].busy = 0;
					busy[i / per]--;
					all.lost++;
				}
		}
		if (!progress) { // at a rate: briefly, so that what shares the processor gets on
			struct timespec w = {0, rate > 0 ? 20000 : 1000000};
			ppoll(pf, nsock, &w, NULL);
		}
	}
	double d = (now() - begin) / 1e9, cpu = cputime(&sys) - cpu0, own = owncpu() - own0;
	report(&all, d, cpu, sys - sys0, own);
}
