package state

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// batchVersion is the first octet of a log entry. A change of the envelope gets
// a new one, below 32: others are the cluster's. DecodeBatch goes on reading the old.
//
// keyedVersion has a Once with each entry; it is written where one has one.
const (
	batchVersion = 1
	keyedVersion = 2
)

// envelope is one entry in the log.
type envelope struct {
	_      struct{} `cbor:",toarray"`
	Code   Code
	At     int64
	Actor  string
	Source string
	Reason string
	Body   cbor.RawMessage
}

// keyedEnvelope is an envelope of keyedVersion.
type keyedEnvelope struct {
	_      struct{} `cbor:",toarray"`
	Code   Code
	At     int64
	Actor  string
	Source string
	Reason string
	Body   cbor.RawMessage
	Once   Once
}

// encoding writes the deterministic form of RFC 8949 section 4.2.1. Strings are
// byte strings: a domain name is octets, not UTF-8.
var encoding = func() cbor.EncMode {
	o := cbor.CoreDetEncOptions()
	o.String = cbor.StringToByteString
	m, err := o.EncMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return m
}()

// decoding refuses what encoding would not have written.
var decoding = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:          cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:    16,
		MaxArrayElements:   1 << 16,
		MaxMapPairs:        1 << 10,
		IndefLength:        cbor.IndefLengthForbidden,
		TagsMd:             cbor.TagsForbidden,
		ExtraReturnErrors:  cbor.ExtraDecErrorUnknownField,
		ByteStringToString: cbor.ByteStringToStringAllowed,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return m
}()

// envelopeSize bounds what an entry takes beside its texts and its command, in octets.
const envelopeSize = 112

// Encode checks the entry and encodes its command for EncodeBatch, so that this does
// not happen twice. It says how many octets the entry takes in a batch at most.
func (e *Entry) Encode() (octets int, err error) {
	if e.Command == nil {
		return 0, errors.New("no command")
	}
	if err := e.check(); err != nil {
		return 0, err
	}
	if e.body == nil {
		if e.body, err = encoding.Marshal(e.Command); err != nil {
			return 0, fmt.Errorf("code %d: %w", e.Command.Code(), err)
		}
	}
	return len(e.body) + len(e.Actor) + len(e.Source) + len(e.Reason) + envelopeSize, nil
}

// EncodeBatch packs entries into one log entry's data. Equal entries encode to
// equal bytes. It refuses more than MaxBatch entries and maxBatchBytes octets.
func EncodeBatch(entries []Entry) ([]byte, error) {
	if len(entries) == 0 || len(entries) > MaxBatch {
		return nil, fmt.Errorf("encoding batch: %d commands, want 1 to %d", len(entries), MaxBatch)
	}
	out := make([]keyedEnvelope, len(entries))
	version := byte(batchVersion)
	for i, e := range entries { // e is a copy: the caller's stay as they are
		if _, err := e.Encode(); err != nil {
			return nil, fmt.Errorf("encoding batch: entry %d: %w", i, err)
		}
		out[i] = keyedEnvelope{Code: e.Command.Code(), At: e.At, Actor: e.Actor, Source: e.Source, Reason: e.Reason, Body: e.body, Once: e.Once}
		if e.Once.asked() {
			version = keyedVersion
		}
	}
	data, err := marshalEnvelopes(version, out)
	if err != nil {
		return nil, fmt.Errorf("encoding batch: %w", err)
	}
	if len(data)+1 > maxBatchBytes {
		return nil, fmt.Errorf("encoding batch: %d octets, at most %d", len(data)+1, maxBatchBytes)
	}
	return append([]byte{version}, data...), nil
}

func marshalEnvelopes(version byte, all []keyedEnvelope) ([]byte, error) {
	if version == keyedVersion {
		return encoding.Marshal(all)
	}
	plain := make([]envelope, len(all))
	for i, v := range all {
		plain[i] = envelope{Code: v.Code, At: v.At, Actor: v.Actor, Source: v.Source, Reason: v.Reason, Body: v.Body}
	}
	return encoding.Marshal(plain)
}

func unmarshalEnvelopes(version byte, data []byte) ([]keyedEnvelope, error) {
	var all []keyedEnvelope
	if version == keyedVersion {
		err := decoding.Unmarshal(data, &all)
		return all, err
	}
	var plain []envelope
	if err := decoding.Unmarshal(data, &plain); err != nil {
		return nil, err
	}
	for _, v := range plain {
		all = append(all, keyedEnvelope{Code: v.Code, At: v.At, Actor: v.Actor, Source: v.Source, Reason: v.Reason, Body: v.Body})
	}
	return all, nil
}

// check bounds what a proposer stamps on a command.
func (e Entry) check() error {
	switch {
	case e.At < 0:
		return fmt.Errorf("time %d is before 1970", e.At)
	case len(e.Actor) > maxActor:
		return fmt.Errorf("actor of %d octets, at most %d", len(e.Actor), maxActor)
	case len(e.Source) > maxSource:
		return fmt.Errorf("source of %d octets, at most %d", len(e.Source), maxSource)
	case len(e.Reason) > maxReason:
		return fmt.Errorf("reason of %d octets, at most %d", len(e.Reason), maxReason)
	}
	return nil
}

// DecodeBatch reads what EncodeBatch wrote. An unknown code is an error: the
// node is older than the cluster and must not go on.
func DecodeBatch(data []byte) ([]Entry, error) {
	if len(data) == 0 {
		return nil, errors.New("decoding batch: no data")
	}
	if len(data) > maxBatchBytes {
		return nil, fmt.Errorf("decoding batch: %d octets, at most %d", len(data), maxBatchBytes)
	}
	if data[0] != batchVersion && data[0] != keyedVersion {
		return nil, fmt.Errorf("decoding batch: version %d, this release reads %d: upgrade this node", data[0], keyedVersion)
	}
	in, err := unmarshalEnvelopes(data[0], data[1:])
	if err != nil {
		return nil, fmt.Errorf("decoding batch: %w", err)
	}
	if len(in) == 0 || len(in) > MaxBatch {
		return nil, fmt.Errorf("decoding batch: %d commands, want 1 to %d", len(in), MaxBatch)
	}
	entries := make([]Entry, len(in))
	for i, v := range in {
		c, err := decodeCommand(v.Code, v.Body)
		if err != nil {
			return nil, fmt.Errorf("decoding batch: entry %d: %w", i, err)
		}
		entries[i] = Entry{At: v.At, Actor: v.Actor, Source: v.Source, Reason: v.Reason, Once: v.Once, Command: c}
		if err := entries[i].check(); err != nil {
			return nil, fmt.Errorf("decoding batch: entry %d: %w", i, err)
		}
	}
	return entries, nil
}

// decodeCommand reads the body of one code.
func decodeCommand(code Code, body []byte) (Command, error) {
	switch code {
	case CodeSetSettings:
		return decodeBody[SetSettings](body)
	case CodePutPlatform:
		return decodeBody[PutPlatform](body)
	case CodePutRecord:
		return decodeBody[PutRecord](body)
	case CodePutNameServer:
		return decodeBody[PutNameServer](body)
	case CodePutPool:
		return decodeBody[PutPool](body)
	case CodeAddTenant:
		return decodeBody[AddTenant](body)
	case CodeSuspendTenant:
		return decodeBody[SuspendTenant](body)
	case CodeLimitTenant:
		return decodeBody[LimitTenant](body)
	case CodeAddDomain:
		return decodeBody[AddDomain](body)
	case CodePatchDomain:
		return decodeBody[PatchDomain](body)
	case CodeProveDomain:
		return decodeBody[ProveDomain](body)
	case CodeLeaveDomain:
		return decodeBody[LeaveDomain](body)
	case CodeRestoreDomain:
		return decodeBody[RestoreDomain](body)
	case CodeExpireDomain:
		return decodeBody[ExpireDomain](body)
	case CodePutDomainRecord:
		return decodeBody[PutDomainRecord](body)
	case CodeStepKey:
		return decodeBody[StepKey](body)
	case CodeRevokeKey:
		return decodeBody[RevokeKey](body)
	case CodeReplaceKey:
		return decodeBody[ReplaceKey](body)
	case CodeSetWrap:
		return decodeBody[SetWrap](body)
	case CodeRewrap:
		return decodeBody[Rewrap](body)
	case CodeSetReads:
		return decodeBody[SetReads](body)
	case CodeBringKey:
		return decodeBody[BringKey](body)
	case CodeStartRotation:
		return decodeBody[StartRotation](body)
	case CodeAdvanceRotation:
		return decodeBody[AdvanceRotation](body)
	case CodeControlRotation:
		return decodeBody[ControlRotation](body)
	case CodeAddAccessToken:
		return decodeBody[AddAccessToken](body)
	case CodeDropAccessToken:
		return decodeBody[DropAccessToken](body)
	case CodeDropPlatform:
		return decodeBody[DropPlatform](body)
	case CodeDropPool:
		return decodeBody[DropPool](body)
	case CodeDropNameServer:
		return decodeBody[DropNameServer](body)
	case CodeReschedule:
		return decodeBody[Reschedule](body)
	case CodeNote:
		return decodeBody[Note](body)
	case CodeSetDomainRecords:
		return decodeBody[SetDomainRecords](body)
	case CodeSetAuthority:
		return decodeBody[SetAuthority](body)
	case CodeInviteNode:
		return decodeBody[InviteNode](body)
	case CodeAdmitNode:
		return decodeBody[AdmitNode](body)
	case CodeSettleNode:
		return decodeBody[SettleNode](body)
	case CodeSetServing:
		return decodeBody[SetServing](body)
	case CodeSetCookieSecret:
		return decodeBody[SetCookieSecret](body)
	case CodeCheckState:
		return decodeBody[CheckState](body)
	}
	return nil, fmt.Errorf("unknown command code %d: this node is older than the cluster: upgrade it", code)
}

func decodeBody[C Command](body []byte) (Command, error) {
	var c C
	if err := decoding.Unmarshal(body, &c); err != nil {
		return nil, fmt.Errorf("command code %d: %w", c.Code(), err)
	}
	return c, nil
}
