package main_test

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// customersFile has a thousand customers in both modes, with the variety that
// real ones have.
const customersFile = "../../testdata/customers.csv"

// digSample is how many of the answers are asked for with dig as well.
const digSample = 200

// served is the reply of GET …/served.
type served struct {
	Records []struct {
		Name   string   `json:"name"`
		Type   string   `json:"type"`
		TTL    uint32   `json:"ttl"`
		Values []string `json:"values"`
	} `json:"records"`
}

// answers are what the API of a node says is served at a path.
func (c *cluster) answers(node int, path string) (all []answer) {
	c.Helper()
	var s served
	c.call(node, "GET", path, nil, &s)
	for _, r := range s.Records {
		a, err := newAnswer(r.Name, r.Type, r.TTL, r.Values)
		if err != nil {
			c.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

// expected is everything the cluster must answer, as a node's API says: the
// platform zones and every claim.
func (c *cluster) expected(node int) (all []answer, domains int) {
	c.Helper()
	for _, raw := range c.items(node, "/v1/zones") {
		var z struct {
			Zone string `json:"zone"`
		}
		c.decode(raw, &z)
		all = append(all, c.answers(node, "/v1/zones/"+z.Zone+"/served")...)
	}
	for _, raw := range c.items(node, "/v1/domains") {
		var d domainReply
		c.decode(raw, &d)
		own := c.answers(node, "/v1/domains/"+d.Token+"/served")
		if len(own) < 3 {
			c.Fatalf("%s (%s): only %d RRsets are served", d.Domain, d.State, len(own))
		}
		all = append(all, own...)
		domains++
	}
	return all, domains
}

// items is every item of a list.
func (c *cluster) items(node int, path string) (items []json.RawMessage) {
	c.Helper()
	for cursor := ""; ; {
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next"`
		}
		c.call(node, "GET", path+"?limit=500&cursor="+url.QueryEscape(cursor), nil, &page)
		items = append(items, page.Items...)
		if cursor = page.Next; cursor == "" {
			return items
		}
	}
}

func (c *cluster) decode(raw []byte, into any) {
	c.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		c.Fatalf("%v in %s", err, raw)
	}
}

// customersIn reads the pools and domains of an import file.
func customersIn(l *lab, file string) (pools []string, domains map[string]bool) {
	l.Helper()
	f, err := os.Open(file)
	if err != nil {
		l.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		l.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	seen := map[string]bool{}
	domains = map[string]bool{}
	for _, r := range rows[1:] {
		if pool := r[column["pool"]]; !seen[pool] {
			seen[pool] = true
			pools = append(pools, pool)
		}
		domains[r[column["domain"]]] = true
	}
	return pools, domains
}

// importable starts a cluster that has the pools of the customers' file.
func (l *lab) importable() (c *cluster, domains int) {
	l.Helper()
	// Keys of the lab source: distinct and of real size, but they cost nothing.
	c = l.startDev(l.build("lab"))
	pools, names := customersIn(l, customersFile)
	c.platform(pools...)
	return c, len(names)
}

// TestImportThousandCustomersRightOnEveryNode imports and then asks every node
// for every record: at once, after a restart of all nodes, and on one node alone
// after all were killed.
func TestImportThousandCustomersRightOnEveryNode(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	c, domains := l.importable()
	if out, err := c.cli(2, "domain", "import", customersFile); err != nil {
		l.Fatalf("importing: %v\n%s", err, out)
	}
	c.caughtUp(1, 2, 3)
	all, imported := c.expected(1)
	if imported != domains {
		l.Fatalf("%d domains were imported, not %d", imported, domains)
	}
	l.mustAnswer("after the import", all, c.dns(1), c.dns(2), c.dns(3))
	c.digSample(all)

	if out, err := c.cli(3, "domain", "import", customersFile); err != nil {
		l.Fatalf("importing again: %v\n%s", err, out)
	}
	again, _ := c.expected(3)
	mustEqual(l, "after a second import, which changes nothing", again, all)

	c.restartAll()
	l.mustAnswer("after a restart of all nodes", all, c.dns(1), c.dns(2), c.dns(3))

	all = c.lastWrites(all)
	c.killAll(1, 2, 3)
	c.serve(3)
	l.mustAnswer("on one node alone, after all were killed", all, c.dns(3))
}

// restartAll stops every node with SIGTERM and starts the cluster again from the
// same directory.
func (c *cluster) restartAll() {
	c.Helper()
	c.dev.end(syscall.SIGTERM)
	if c.dev.err != nil {
		c.Fatalf("authd dev did not stop cleanly: %v\n%s", c.dev.err, tail(c.dev.log, 20))
	}
	*c = *c.startDev(c.binary)
	c.leader(1, 2, 3)
}

// lastWrites makes further writes, each confirmed by every node, and adds what
// they changed to what must be answered. Nothing is waited for after the last.
func (c *cluster) lastWrites(all []answer) []answer {
	c.Helper()
	const writes = 20
	for i := range writes {
		d := c.add(fmt.Sprintf("last%d.customer.test", i), "delegated")
		r := c.call(1+i%labNodes, "PUT", "/v1/domains/"+d.Token+"/records/note/TXT?wait=served",
			map[string]any{"ttl": 300, "values": []string{fmt.Sprintf("write %d", i)}}, nil)
		if r.header.Get("X-Authd-Index") == "" {
			c.Fatal("the reply to a write carries no X-Authd-Index")
		}
		note, err := newAnswer("note."+d.Domain, "TXT", 300, []string{fmt.Sprintf("\"write %d\"", i)})
		if err != nil {
			c.Fatal(err)
		}
		all = append(all, note)
	}
	return all
}

// digSample asks with dig for a sample of the answers, spread over the nodes.
func (c *cluster) digSample(all []answer) {
	c.Helper()
	random := rand.New(rand.NewPCG(1, 2)) // the same sample in every run
	for i, at := range random.Perm(len(all))[:min(digSample, len(all))] {
		c.dig(c.dns(1+i%labNodes), all[at])
	}
	c.Logf("dig agrees on a sample of %d", min(digSample, len(all)))
}

// mustEqual compares two sets of answers in any order.
func mustEqual(l *lab, when string, got, want []answer) {
	l.Helper()
	text := func(answers []answer) []string {
		var lines []string
		for _, a := range answers {
			lines = append(lines, fmt.Sprintf("%s %d %s", a.owner, a.qtype, a.wanted))
		}
		slices.Sort(lines)
		return lines
	}
	g, w := text(got), text(want)
	if slices.Equal(g, w) {
		return
	}
	if len(g) != len(w) {
		l.Fatalf("%s: %d RRsets, not %d", when, len(g), len(w))
	}
	for i := range g {
		if g[i] != w[i] {
			l.Fatalf("%s:\n got %s\nwant %s", when, g[i], w[i])
		}
	}
}

// TestImportResumesAfterLeaderKilled kills the leader in the middle of an import
// through another node, and runs the import again.
func TestImportResumesAfterLeaderKilled(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	c, domains := l.importable()
	leader := c.leader(1, 2, 3)
	left := slices.DeleteFunc([]int{1, 2, 3}, func(i int) bool { return i == leader })
	cmd := exec.Command(c.binary, "domain", "import", customersFile)
	cmd.Env = append(os.Environ(), "AUTHD_ADDR="+c.apiURL(left[0]), "AUTHD_TOKEN="+c.token)
	importing := l.start("import", cmd)
	done := 0
	l.eventually(labSettle, "an import in its middle", func() error {
		var page struct {
			Items []json.RawMessage `json:"items"`
		}
		c.call(left[1], "GET", "/v1/domains?limit=1000", nil, &page)
		if done = len(page.Items); done > 0 {
			return nil
		}
		if !importing.running() {
			return fmt.Errorf("it ended: %w", errStop)
		}
		return errors.New("nothing yet")
	})
	c.kill(leader)
	if done >= domains {
		l.Fatalf("all %d domains were there before the leader was killed", done)
	}
	<-importing.done
	l.Logf("the leader was killed with at least %d of %d domains imported; the import ended: %v", done, domains, importing.err)
	l.eventually(2*time.Minute, "an import resumed", func() error {
		out, err := c.cli(left[1], "domain", "import", customersFile)
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	})
	c.caughtUp(left...)
	all, imported := c.expected(left[0])
	if imported != domains {
		l.Fatalf("%d domains were imported, not %d", imported, domains)
	}
	l.mustAnswer("with the leader killed in the middle of the import", all, c.dns(left[0]), c.dns(left[1]))
	c.back(leader)
	c.caughtUp(1, 2, 3)
	l.mustAnswer("once that node is back", all, c.dns(1), c.dns(2), c.dns(3))
}

// back brings a killed node back: authd dev may have done so itself.
func (c *cluster) back(i int) {
	c.Helper()
	if _, err := c.try(i, "GET", "/health", nil); err == nil {
		return
	}
	c.serve(i)
}

// TestKillLeaderSameAnswersEverywhere asks all the time while the leader is
// killed: the others go on answering, writes come back, and the node that
// returns answers the same.
func TestKillLeaderSameAnswersEverywhere(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	c := l.startDev(l.build("lab"))
	c.platform("default")
	c.add("send.shop.example", "delegated")
	c.add("store.example", "cname")
	c.caughtUp(1, 2, 3)
	all, _ := c.expected(1)
	l.mustAnswer("before", all, c.dns(1), c.dns(2), c.dns(3))
	leader := c.leader(1, 2, 3)
	left := slices.DeleteFunc([]int{1, 2, 3}, func(i int) bool { return i == leader })
	c.kill(leader)
	asked := 0
	for {
		asked += l.mustAnswer("without the leader", all, c.dns(left[0]), c.dns(left[1]))
		r, err := c.try(left[0], "POST", "/v1/tenants/acme/domains", map[string]any{"domain": "send.late.example", "mode": "delegated", "pool": "default"})
		if err != nil {
			l.Fatal(err)
		}
		if r.status == 201 {
			break
		}
		if r.status != 503 {
			l.Fatalf("a write without a leader: %d\n%s", r.status, r.body)
		}
		if asked > 1_000_000 {
			l.Fatal("no new leader takes writes")
		}
	}
	if now := c.leader(left...); now == leader {
		l.Fatalf("node %d, which was killed, is shown as leader still", leader)
	}
	c.caughtUp(left...)
	all, _ = c.expected(left[0])
	l.mustAnswer("after a write to the new leader", all, c.dns(left[0]), c.dns(left[1]))
	c.back(leader)
	c.caughtUp(1, 2, 3)
	l.mustAnswer("with the killed node back", all, c.dns(1), c.dns(2), c.dns(3))
	mine, _ := c.expected(leader)
	mustEqual(l, "at the API of the killed node", mine, all)
}

// dataFiles are all files that a cluster wrote, and what its processes printed.
func (c *cluster) dataFiles() (files []string) {
	c.Helper()
	err := filepath.WalkDir(c.lab.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && path != c.binary && !strings.HasPrefix(filepath.Base(path), "authd-") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		c.Fatal(err)
	}
	return files
}
