// Command agree asks several name servers the same questions and says where
// their answers differ: response code, AA and TC, the answer section whatever
// its order, and the SOA of a negative answer with its TTL. Sections that a
// server may fill or leave out as it likes (RFC 1034 section 4.3.2, additional
// data) are not compared.
//
//	agree [-count N] [-loose ADDRESS] FILE ADDRESS...
//
// Of the loose server the TTL of a negative answer's SOA is not compared: CoreDNS
// has it without regard to the zone's minimum (RFC 2308 section 5).
//
// FILE has a line "name TYPE" for each question. A name that begins with nx-
// must not exist, any other must have what is asked for. With one address only
// that is checked.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// shown is how many differences are told in full.
const shown = 5

type question struct {
	name string
	kind uint16
}

func main() {
	count := flag.Int("count", 1000, "questions to ask, spread over the file")
	tries := flag.Int("tries", 3, "of each question")
	loose := flag.String("loose", "", "address of the loose server")
	quiet := flag.Bool("quiet", false, "say nothing where all is well")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: agree [-count N] FILE ADDRESS...")
		os.Exit(2)
	}
	asked, wrong, err := run(flag.Arg(0), flag.Args()[1:], *loose, *count, *tries)
	if err != nil {
		fmt.Fprintln(os.Stderr, "agree:", err)
		os.Exit(1)
	}
	if !*quiet || wrong > 0 {
		fmt.Printf("agree: %s: %d questions, %d servers, %d differences\n", flag.Arg(0), asked, flag.NArg()-1, wrong)
	}
	if wrong > 0 {
		os.Exit(1)
	}
}

func run(file string, servers []string, loose string, count, tries int) (asked, wrong int, err error) {
	questions, err := read(file, count)
	if err != nil {
		return 0, 0, err
	}
	for _, q := range questions {
		first := ""
		for i, server := range servers {
			got, err := ask(server, q, tries)
			if err != nil {
				return asked, wrong, fmt.Errorf("%s %s at %s: %w", q.name, dns.TypeToString[q.kind], server, err)
			}
			if i == 0 {
				first = got
				if !expected(q, got) {
					wrong++
					fmt.Printf("%s %s: unexpected at %s:\n%s\n", q.name, dns.TypeToString[q.kind], server, got)
				}
			}
			want := first
			if server == loose {
				got, want = negativeTTL.ReplaceAllString(got, "$1"), negativeTTL.ReplaceAllString(want, "$1")
			}
			if got != want {
				if wrong++; wrong <= shown {
					fmt.Printf("%s %s: %s says\n%s\nand %s says\n%s\n", q.name, dns.TypeToString[q.kind], servers[0], first, server, got)
				}
			}
		}
		asked++
	}
	return asked, wrong, nil
}

// negativeTTL finds the TTL of the SOA of a negative answer.
var negativeTTL = regexp.MustCompile(`(?m)^(\S+\t)\d+(?:\tin\tsoa\t)`)

// read takes count questions, evenly spread.
func read(file string, count int) ([]question, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []question
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, kind, ok := strings.Cut(lines.Text(), " ")
		if t, known := dns.StringToType[kind]; ok && known {
			all = append(all, question{dns.Fqdn(name), t})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no questions", file)
	}
	var some []question
	for i := range min(count, len(all)) {
		some = append(some, all[i*len(all)/min(count, len(all))])
	}
	return some, lines.Err()
}

// ask gives an answer in a form that is the same for equal answers.
func ask(server string, q question, tries int) (string, error) {
	m := new(dns.Msg)
	m.SetQuestion(q.name, q.kind)
	m.RecursionDesired = false
	m.SetEdns0(1232, false)
	c := dns.Client{Timeout: time.Second, UDPSize: 1232}
	var r *dns.Msg
	var err error
	for range tries {
		if r, _, err = c.Exchange(m, server); err == nil {
			break
		}
	}
	if err != nil {
		return "", err
	}
	if len(r.Question) != 1 || r.Question[0].Name != q.name {
		return "", fmt.Errorf("the question came back as %v", r.Question)
	}
	lines := []string{fmt.Sprintf("%s aa=%t tc=%t", dns.RcodeToString[r.Rcode], r.Authoritative, r.Truncated)}
	answers := text(r.Answer)
	if len(answers) == 0 {
		answers = text(r.Ns)
	}
	return strings.Join(append(lines, answers...), "\n"), nil
}

// text sorts records. Names are compared as DNS compares them: compression may
// give those in data the case of the question.
func text(records []dns.RR) []string {
	var lines []string
	for _, r := range records {
		r.Header().Name = strings.ToLower(r.Header().Name)
		if r.Header().Rrtype == dns.TypeTXT {
			lines = append(lines, r.String())
		} else {
			lines = append(lines, strings.ToLower(r.String()))
		}
	}
	slices.Sort(lines)
	return lines
}

// expected says whether an answer is what the file promises.
func expected(q question, got string) bool {
	if strings.HasPrefix(q.name, "nx-") {
		return strings.HasPrefix(got, "NXDOMAIN aa=true tc=false\n")
	}
	return strings.HasPrefix(got, "NOERROR aa=true tc=false\n") && strings.Contains(strings.ToUpper(got), "\t"+dns.TypeToString[q.kind]+"\t")
}
