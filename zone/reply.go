package zone

// appendAnswer appends the sections of an answer to dst, where header and
// question of the message that starts at offset start are already written, and
// sets AA, TC, RCODE and the four counts in its header, OPCODE, QR, RD and the
// rest being the caller's. The message never gets longer than limit octets: the
// caller leaves room for its OPT record and counts it in ARCOUNT himself
// afterwards. What does not fit is cut down to header and question with TC;
// additional records are dropped before that, without TC, other than glue
// (RFC 9471 section 3.1). With room in dst it does not allocate.
func appendAnswer(dst []byte, start int, q *query, a *answer, limit int) (out []byte, truncated bool) {
	panic("todo")
}
