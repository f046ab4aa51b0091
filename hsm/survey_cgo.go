//go:build cgo

package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

var _ surveyor = (*native)(nil)

func (n *native) about() (LibraryFacts, error) {
	info, err := n.ctx.GetInfo()
	return LibraryFacts{
		Manufacturer: info.ManufacturerID, Description: info.LibraryDescription,
		Version: versionText(info.LibraryVersion), Cryptoki: versionText(info.CryptokiVersion),
	}, called("C_GetInfo", err)
}

func versionText(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

func (n *native) slotFacts() ([]SlotFacts, error) {
	slots, err := n.ctx.GetSlotList(false)
	if err != nil {
		return nil, called("C_GetSlotList", err)
	}
	out := make([]SlotFacts, 0, len(slots))
	for _, slot := range slots {
		out = append(out, n.slot(slot))
	}
	return out, nil
}

// slot reads one slot. One that cannot be read does not hide the others.
func (n *native) slot(slot uint) SlotFacts {
	facts := SlotFacts{ID: slot}
	info, err := n.ctx.GetSlotInfo(slot)
	if err != nil {
		facts.Problem = called("C_GetSlotInfo", err).Error()
		return facts
	}
	facts.Description, facts.Hardware = info.SlotDescription, info.Flags&pkcs11.CKF_HW_SLOT != 0
	if info.Flags&pkcs11.CKF_TOKEN_PRESENT == 0 {
		return facts
	}
	token, err := n.ctx.GetTokenInfo(slot)
	switch {
	case err != nil:
		facts.Problem = called("C_GetTokenInfo", err).Error()
	case token.Flags&ckfTokenInitialized != 0:
		facts.Token, err = n.token(slot, token)
		if err != nil {
			facts.Problem = err.Error()
		}
	}
	return facts
}

func (n *native) token(slot uint, info pkcs11.TokenInfo) (*TokenFacts, error) {
	facts := &TokenFacts{
		Label: info.Label, Manufacturer: info.ManufacturerID, Model: info.Model, Serial: info.SerialNumber,
		Firmware: versionText(info.FirmwareVersion), Flags: names(info.Flags, tokenFlags()),
		MaxSessions: limit(info.MaxSessionCount), MaxRWSessions: limit(info.MaxRwSessionCount), Sessions: count(info.SessionCount),
		MinPIN: info.MinPinLen, MaxPIN: info.MaxPinLen,
	}
	list, err := n.ctx.GetMechanismList(slot)
	if err != nil {
		return facts, called("C_GetMechanismList", err)
	}
	for _, m := range list {
		about, err := n.ctx.GetMechanismInfo(slot, []*pkcs11.Mechanism{m})
		if err != nil {
			continue // listed and then denied: as good as not there
		}
		facts.Mechanisms = append(facts.Mechanisms, MechanismFacts{
			Name: mechanismName(m.Mechanism), MinKey: about.MinKeySize, MaxKey: about.MaxKeySize,
			Uses: names(about.Flags, mechanismUses()), Hardware: about.Flags&pkcs11.CKF_HW != 0,
		})
	}
	return facts, nil
}

func (n *native) objects(s sessionHandle, most int) ([]objectHandle, error) {
	session := pkcs11.SessionHandle(s)
	if err := n.ctx.FindObjectsInit(session, nil); err != nil {
		return nil, called("C_FindObjectsInit", err)
	}
	var out []objectHandle
	var err error
	for len(out) < most {
		var found []pkcs11.ObjectHandle
		found, _, err = n.ctx.FindObjects(session, min(most-len(out), 100))
		if err != nil || len(found) == 0 {
			break
		}
		for _, o := range found {
			out = append(out, objectHandle(o))
		}
	}
	return out, errors.Join(called("C_FindObjects", err), called("C_FindObjectsFinal", n.ctx.FindObjectsFinal(session)))
}

func (n *native) blockECB(s sessionHandle, key objectHandle) ([]byte, error) {
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_ECB, nil)}
	if err := n.ctx.EncryptInit(pkcs11.SessionHandle(s), m, pkcs11.ObjectHandle(key)); err != nil {
		return nil, called("C_EncryptInit", err)
	}
	out, err := n.ctx.Encrypt(pkcs11.SessionHandle(s), make([]byte, 16))
	return out, called("C_Encrypt", err)
}

func (n *native) blockCMAC(s sessionHandle, key objectHandle) ([]byte, error) {
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_CMAC, nil)}
	if err := n.ctx.SignInit(pkcs11.SessionHandle(s), m, pkcs11.ObjectHandle(key)); err != nil {
		return nil, called("C_SignInit", err)
	}
	out, err := n.ctx.Sign(pkcs11.SessionHandle(s), make([]byte, 16))
	return out, called("C_Sign", err)
}
