//go:build cgo

package hsm

/*
#cgo linux LDFLAGS: -ldl
#cgo noescape chatelaine_call
#cgo nocallback chatelaine_call
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

// The few declarations of PKCS#11 v2.40 that C_Encrypt, C_Decrypt and C_Sign need. The
// function list is a CK_VERSION followed by pointers in the order of the
// standard's section 5; on Unix nothing is packed.
typedef unsigned long ulong_t;
typedef struct {
	unsigned char *iv; ulong_t iv_len, iv_bits;
	unsigned char *aad; ulong_t aad_len;
	ulong_t tag_bits;
} gcm_params_t;
typedef struct { ulong_t hash, mgf, source; void *data; ulong_t data_len; } oaep_params_t;
typedef struct { ulong_t kind; void *param; ulong_t param_len; } mechanism_t;
typedef ulong_t (*init_t)(ulong_t session, mechanism_t *mechanism, ulong_t key);
typedef ulong_t (*crypt_t)(ulong_t session, unsigned char *in, ulong_t in_len,
	unsigned char *out, ulong_t *out_len);
typedef struct { unsigned char major, minor; void *fn[68]; } function_list_t;
typedef ulong_t (*get_list_t)(function_list_t **list);

enum {
	FN_ENCRYPT_INIT = 29, FN_DECRYPT_INIT = 33, FN_SIGN_INIT = 42,
	CKM_AES_GCM_ = 0x1087, CKM_RSA_OAEP_ = 9, CKM_SHA_1_ = 0x220,
	CKG_MGF1_SHA1_ = 1, CKG_MGF1_SHA256_ = 2, CKZ_DATA_SPECIFIED_ = 1,
};

// chatelaine_load maps a module and finds its function list. NODELETE, because
// vendor libraries leave threads and exit handlers behind that must not dangle.
static function_list_t *chatelaine_load(const char *path, const char **why, ulong_t *code) {
	*why = NULL;
	*code = 0;
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!lib) { *why = dlerror(); return NULL; }
	get_list_t get = (get_list_t)dlsym(lib, "C_GetFunctionList");
	if (!get) { *why = "it has no C_GetFunctionList: it is not a PKCS#11 module"; return NULL; }
	function_list_t *list = NULL;
	*code = get(&list);
	return *code ? NULL : list;
}

// chatelaine_call makes the Init call and the single-part call at index fn and
// fn+1 of the list. *stage is 0 when the first of them failed.
static ulong_t chatelaine_call(function_list_t *list, int fn, ulong_t session, ulong_t key,
	ulong_t kind, unsigned char *iv, ulong_t iv_len, ulong_t iv_bits,
	unsigned char *aad, ulong_t aad_len, ulong_t hash,
	unsigned char *in, ulong_t in_len, unsigned char *out, ulong_t *out_len, int *stage) {
	gcm_params_t gcm = { iv, iv_len, iv_bits, aad, aad_len, 128 };
	oaep_params_t oaep = { hash, hash == CKM_SHA_1_ ? CKG_MGF1_SHA1_ : CKG_MGF1_SHA256_,
		CKZ_DATA_SPECIFIED_, NULL, 0 };
	mechanism_t mechanism = { kind, iv_len ? iv : NULL, iv_len };
	if (kind == CKM_AES_GCM_) { mechanism.param = &gcm; mechanism.param_len = sizeof gcm; }
	if (kind == CKM_RSA_OAEP_) { mechanism.param = &oaep; mechanism.param_len = sizeof oaep; }
	*stage = 0;
	ulong_t rv = ((init_t)list->fn[fn])(session, &mechanism, key);
	if (rv) return rv;
	*stage = 1;
	return ((crypt_t)list->fn[fn + 1])(session, in, in_len, out, out_len);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// functionList is the module's own table of functions, valid while it is mapped.
type functionList struct{ list *C.function_list_t }

// loadFunctions maps the module at path. It stays mapped until the process ends.
func loadFunctions(path string) (functionList, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var why *C.char
	var code C.ulong_t
	list := C.chatelaine_load(name, &why, &code)
	switch {
	case why != nil:
		return functionList{}, errors.New(C.GoString(why))
	case code != 0 || list == nil:
		return functionList{}, fmt.Errorf("C_GetFunctionList: %s", codeName(uint(code)))
	}
	return functionList{list}, nil
}

func (f functionList) encrypt(s sessionHandle, key objectHandle, m mechanism, in []byte) ([]byte, error) {
	return f.call(C.FN_ENCRYPT_INIT, [2]string{"C_EncryptInit", "C_Encrypt"}, s, key, m, in)
}

func (f functionList) decrypt(s sessionHandle, key objectHandle, m mechanism, in []byte) ([]byte, error) {
	return f.call(C.FN_DECRYPT_INIT, [2]string{"C_DecryptInit", "C_Decrypt"}, s, key, m, in)
}

func (f functionList) sign(s sessionHandle, key objectHandle, m mechanism, in []byte) ([]byte, error) {
	return f.call(C.FN_SIGN_INIT, [2]string{"C_SignInit", "C_Sign"}, s, key, m, in)
}

func (f functionList) call(fn C.int, names [2]string, s sessionHandle, key objectHandle, m mechanism, in []byte) ([]byte, error) {
	out := make([]byte, len(in)+outRoom)
	size := C.ulong_t(len(out))
	bits := m.ivBits
	if bits == 0 {
		bits = 8 * uint(len(m.iv))
	}
	var stage C.int
	rv := C.chatelaine_call(f.list, fn, C.ulong_t(s), C.ulong_t(key),
		C.ulong_t(m.kind), bytePtr(m.iv), C.ulong_t(len(m.iv)), C.ulong_t(bits),
		bytePtr(m.aad), C.ulong_t(len(m.aad)), C.ulong_t(m.hash),
		bytePtr(in), C.ulong_t(len(in)), bytePtr(out), &size, &stage)
	if rv != 0 {
		clear(out)
		return nil, &CallError{Call: names[stage], Code: uint(rv)}
	}
	if size > C.ulong_t(len(out)) {
		return nil, &CallError{Call: names[stage], Code: ckrBufferTooSmall}
	}
	return out[:size], nil
}

// cString copies a text into C's memory for good, or returns nil for none.
func cString(text string) unsafe.Pointer {
	if text == "" {
		return nil
	}
	return unsafe.Pointer(C.CString(text))
}

// bytePtr is the first byte's address, or NULL for none.
func bytePtr(b []byte) *C.uchar { return (*C.uchar)(unsafe.SliceData(b)) }
