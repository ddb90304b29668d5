package main

import (
	"bytes"
	"encoding/csv"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// testdata/customers.csv has a thousand customers with the variety that real
// ones have. It is made here, the same bytes each time:
//
//	go test ./cmd/authd -run TestCustomersFile -update
//
// Names are under .test and .example only (RFC 2606).
var update = flag.Bool("update", false, "write generated files of testdata anew")

const (
	customersFile  = "../../testdata/customers.csv"
	customersCount = 1000
)

// customer is one line of the file.
type customer struct{ tenant, domain, mode, pool, labels string }

func TestCustomersFileIsWhatItsGeneratorMakes(t *testing.T) {
	made := customersCSV(t, generateCustomers())
	if *update {
		if err := os.WriteFile(customersFile, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	there, err := os.ReadFile(customersFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(there, made) {
		t.Fatalf("%s is not what the generator makes: run this test with -update and read the difference", customersFile)
	}
}

func TestCustomersHaveTheVarietyOfRealOnes(t *testing.T) {
	all := generateCustomers()
	if len(all) != customersCount {
		t.Errorf("%d customers, not %d", len(all), customersCount)
	}
	count := map[string]int{}
	domains := map[string]bool{}
	perTenant := map[string]int{}
	for _, c := range all {
		if domains[c.domain] {
			t.Errorf("%s is there twice", c.domain)
		}
		domains[c.domain] = true
		perTenant[c.tenant]++
		count[c.mode]++
		count["pool "+c.pool]++
		labels := strings.Split(c.domain, ".")
		if tld := labels[len(labels)-1]; tld != "test" && tld != "example" {
			t.Errorf("%s is a name somebody may own", c.domain)
		}
		// With the longest name authd puts in front: a minted selector.
		if len("2611-abcdef._domainkey."+c.domain) > 253 {
			t.Errorf("%s leaves no room for a selector", c.domain)
		}
		longest := 0
		for _, l := range labels {
			longest = max(longest, len(l))
		}
		count["longest label"] += btoi(longest == 63)
		count["deep"] += btoi(len(labels) >= 7)
		count["idn"] += btoi(strings.Contains(c.domain, "xn--"))
		count["hyphens"] += btoi(strings.Contains(strings.ReplaceAll(c.domain, "xn--", ""), "-"))
		count["digits first"] += btoi(c.domain[0] >= '0' && c.domain[0] <= '9')
		count["very long"] += btoi(len(c.domain) > 180)
		count["labelled"] += btoi(c.labels != "")
	}
	for _, n := range perTenant {
		count["several domains"] += btoi(n > 1)
	}
	for what, least := range map[string]int{
		"delegated": 400, "cname": 300, "pool default": 500, "pool bulk": 200, "longest label": 10, "deep": 20,
		"idn": 50, "hyphens": 100, "digits first": 10, "very long": 5, "labelled": 200, "several domains": 50,
	} {
		if count[what] < least {
			t.Errorf("%s: %d, fewer than %d", what, count[what], least)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func customersCSV(t *testing.T, all []customer) []byte {
	t.Helper()
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	rows := [][]string{{"tenant", "domain", "mode", "pool", "labels"}}
	for _, c := range all {
		rows = append(rows, []string{c.tenant, c.domain, c.mode, c.pool, c.labels})
	}
	if err := w.WriteAll(rows); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Words that customers' names are made of.
var (
	companyWords = []string{
		"acorn", "amber", "arrow", "aspen", "basil", "beacon", "birch", "bloom", "bramble", "brook", "cedar", "clover",
		"copper", "coral", "crane", "dahlia", "delta", "ember", "falcon", "fern", "flint", "garnet", "ginger", "harbor",
		"hazel", "heron", "indigo", "iris", "ivory", "jasper", "juniper", "kestrel", "lantern", "larch", "lilac", "linden",
		"lotus", "maple", "marble", "meadow", "nectar", "north", "oak", "olive", "opal", "orchid", "otter", "pebble",
		"pine", "plum", "quartz", "raven", "reed", "river", "rowan", "saffron", "sage", "sorrel", "spruce", "swift",
		"thistle", "tulip", "umber", "violet", "walnut", "willow", "winter", "yarrow", "zephyr",
	}
	tradeWords = []string{
		"bakery", "bikes", "books", "clinic", "coffee", "dental", "design", "events", "farms", "fitness", "foods",
		"games", "health", "homes", "hotel", "insurance", "lab", "law", "legal", "logistics", "media", "motors",
		"music", "news", "optics", "press", "shop", "sports", "studio", "supply", "tickets", "tools", "toys", "travel", "yoga",
	}
	// A-labels of real words in several scripts (RFC 5890 section 2.3.2.1).
	idnLabels = []string{
		"xn--bcher-kva", "xn--mnchen-3ya", "xn--caf-dma", "xn--strae-oqa", "xn--fiqs8s", "xn--e1afmkfd", "xn--r8jz45g",
		"xn--hxajbheg2az3al", "xn--zckzah", "xn--kgbechtv", "xn--hgbk6aj7f53bba", "xn--11b5bs3a9aj6g", "xn--9t4b11yi5a",
	}
	// Where customers let their mail come from.
	sendLabels = []string{"send", "mail", "em", "e", "news", "mailer", "mktg", "post", "hello", "notify", "team-mail", "m1", "go", "bounce", "click"}
)

// generateCustomers makes the thousand, the same each time.
func generateCustomers() []customer {
	r := rand.New(rand.NewPCG(20261121, 1000)) // any seed; this one is committed
	used := map[string]bool{}
	var all []customer
	for i := 0; len(all) < customersCount; i++ {
		base := companyName(r, i)
		if used[base] {
			continue
		}
		used[base] = true
		tenant := fmt.Sprintf("t%04d", i)
		if i%3 == 0 { // ids that platforms derive from a name
			tenant = strings.NewReplacer(".", "-", "xn--", "idn-").Replace(base[:min(len(base), 30)])
			tenant = strings.Trim(tenant, "-") + fmt.Sprintf("-%d", i)
		}
		for _, domain := range domainsOf(r, base, i) {
			if len(all) < customersCount {
				all = append(all, customer{tenant, domain.name, domain.mode, pick(r, "default", "default", "default", "bulk", "bulk"), labels(r)})
			}
		}
	}
	// Files come in any order: a tenant's domains are not together.
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// companyName is a customer's registrable domain.
func companyName(r *rand.Rand, i int) string {
	tld := pick(r, "test", "example")
	name := pick(r, companyWords...) + pick(r, "", "-", "") + pick(r, tradeWords...)
	switch i % 25 {
	case 13:
		name = pick(r, idnLabels...)
	case 5:
		name = fmt.Sprintf("%d%s", r.IntN(900)+100, name)
	case 7:
		name = name + "-" + pick(r, tradeWords...) + "-and-" + pick(r, tradeWords...)
	case 9:
		name = pick(r, "a", "b", "q", "x", "z") + fmt.Sprint(i)
	case 11: // as long as a label may be (RFC 1035 section 2.3.4)
		name = longLabel(r, i)
	}
	return name + "." + tld
}

func longLabel(r *rand.Rand, i int) string {
	const maxLabel = 63
	label := fmt.Sprintf("the-%s-%s-company-number-%d-of-", pick(r, companyWords...), pick(r, tradeWords...), i)
	for len(label) < maxLabel {
		label += pick(r, companyWords...)
	}
	label = label[:maxLabel]
	return strings.TrimSuffix(label, "-") + strings.Repeat("x", maxLabel-len(strings.TrimSuffix(label, "-")))
}

type claim struct{ name, mode string }

// domainsOf is what a customer sends from: mostly one domain, some several.
func domainsOf(r *rand.Rand, base string, i int) []claim {
	switch {
	case i%13 == 3: // a brand in its own script
		return []claim{{pick(r, idnLabels...) + "." + base, pick(r, "delegated", "cname")}}
	case i%30 == 17: // deep
		return []claim{{"a.b.eu-west.prod.mail." + pick(r, sendLabels...) + "." + base, "delegated"}}
	case i%90 == 23: // nearly as long as a name may be
		return []claim{{longLabel(r, i) + "." + longLabel(r, i+1) + "." + strings.TrimRight(longLabel(r, i+2)[:40], "-") + "." + base, pick(r, "delegated", "cname")}}
	case i%12 == 2: // several brands or regions
		var all []claim
		labels := slices.Clone(sendLabels)
		r.Shuffle(len(labels), func(a, b int) { labels[a], labels[b] = labels[b], labels[a] })
		for _, l := range labels[:2+r.IntN(4)] {
			all = append(all, claim{l + "." + base, pick(r, "delegated", "delegated", "cname")})
		}
		return append(all, claim{base, "cname"})
	case i%9 == 4: // the same customer in both modes
		return []claim{{pick(r, sendLabels...) + "." + base, "delegated"}, {base, "cname"}}
	case r.IntN(100) < 55:
		return []claim{{pick(r, sendLabels...) + "." + base, "delegated"}}
	default:
		return []claim{{base, "cname"}}
	}
}

func labels(r *rand.Rand) string {
	if r.IntN(10) < 6 {
		return ""
	}
	text := "tier=" + pick(r, "gold", "silver", "free")
	if r.IntN(2) == 0 {
		text += ";region=" + pick(r, "eu-1", "us-2", "ap-1")
	}
	return text
}
