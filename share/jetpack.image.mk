# Makes App Container Images with BSD make: FreeBSD's, or bmake. In an image's directory:
#
#	PARENT_IMAGE = example.com/freebsd-base
#	PKG_INSTALL  = nginx
#	build: ; install -m 0644 nginx.conf /usr/local/etc/nginx/nginx.conf
#	.include "jetpack.image.mk"
#
# beside a manifest.json, or a target of that name which makes it. 'make' builds the image into
# the store: it copies the directory into a copy of PARENT_IMAGE, and there runs make again,
# for the targets build and manifest.json. An image without a parent has ROOTFS instead, the
# directory or tar archive that becomes its root. IMAGES.md tells more.
#
# Variables: PARENT_IMAGE or ROOTFS; PKG_INSTALL, packages to install first; BUILD_DIR, the
# directory to copy (.); BUILD_CP, more files for it; BUILD_COMMAND and BUILD_ARGS, what runs in
# the copy; BUILD_VARS, variables to hand on to it; BUILD_NET, host or none; BUILD_FLAGS, for
# 'jetpack image build'; ACI_FILE, FLAT_ACI_FILE and ACI_ID_FILE, what is made; CLEAN_FILES;
# SIGN_KEY, a secret key, or SIGN_GPG, a user of gpg; REPO, a directory of 'jetpack repo init';
# JETPACK, JETPACK_FLAGS, DEBUG.
#
# Targets: image (default), aci, flat-aci, sign, publish, prepare, build, clean. What is called
# prepare.*, build.* or clean.* is made along with prepare, build or clean.

JETPACK ?= jetpack
.if defined(DEBUG)
JETPACK_FLAGS += --log-level=debug
.endif
_JETPACK = ${JETPACK} ${JETPACK_FLAGS}

ACI_FILE      ?= image.aci
FLAT_ACI_FILE ?= ${ACI_FILE:R}.flat.aci
ACI_ID_FILE   ?= ${ACI_FILE}.id
CLEAN_FILES   += ${ACI_FILE} ${ACI_FILE}.asc ${FLAT_ACI_FILE} ${ACI_ID_FILE} ${ACI_ID_FILE}.from

.MAIN: image

.if make(.jetpack.build.)
# In the copy of the parent image.

.jetpack.build.: build .WAIT manifest.json .PHONY

build: build..packages .WAIT ${.ALLTARGETS:Mbuild.*:Nbuild..*} .PHONY

build..packages: .PHONY
.if !empty(PKG_INSTALL)
.if ${JETPACK_BASE_OS:U} == "linux"
	dpkg -s ${PKG_INSTALL} >/dev/null 2>&1 || { \
		apt-get -q update && \
		env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install ${PKG_INSTALL} && \
		apt-get clean && find /var/lib/apt/lists -type f -delete; }
.else
	env ASSUME_ALWAYS_YES=YES pkg install ${PKG_INSTALL}
	env ASSUME_ALWAYS_YES=YES pkg clean --all
.endif
.endif

.else
# On the host.

BUILD_DIR ?= .
BUILD_NET ?= host
BUILD_CP_JETPACK_IMAGE_MK ?= yes

.jetpack.image.mk.path := ${.PARSEDIR:tA}/${.PARSEFILE}
_SHARE := ${.PARSEDIR:tA}

.if ${BUILD_CP_JETPACK_IMAGE_MK:tl} == "yes"
BUILD_CP += ${.jetpack.image.mk.path}
.endif

# The parent may have no make, or another one: jetpack.make takes the host's along.
.if !defined(BUILD_COMMAND) && empty(ROOTFS)
BUILD_COMMAND = sh ./jetpack.make .jetpack.build. .jetpack.image.mk=./jetpack.image.mk
BUILD_CP     += ${_SHARE}/jetpack.make .jetpack.make
CLEAN_FILES  += .jetpack.make
prepare: prepare..make
.endif

.for v in ${BUILD_VARS}
.if defined(${v})
BUILD_ARGS += ${v}=${${v}:Q}
.endif
.endfor

image: ${ACI_ID_FILE} .PHONY

# The image is old when a source was changed or put in place after it, the parent's root, a makefile
# and files with old times included (find's ctime); when what it is made of is called otherwise, or the
# store knows the parent by another ID; and when the store has the image no more. Products are no sources.
_PRODUCTS = -name '*.aci' -o -name '*.aci.*' -o -name ${ACI_ID_FILE:T:Q}.from -o -path '*/.jetpack.make*' -o -path '*/.git*' ${REPO:D-o -path ${BUILD_DIR:Q}/${REPO:Q} -o -path ${BUILD_DIR:Q}/${REPO:Q}/'*'}
_FROM = { \
	printf '%s\n' ${PARENT_IMAGE:Q} ${ROOTFS:Q} ${BUILD_COMMAND:Q} ${BUILD_ARGS:Q} ${BUILD_CP:Q}; \
	${PARENT_IMAGE:D${_JETPACK} image inspect ${PARENT_IMAGE:Q} 2>/dev/null | grep '"id"' | head -n 1;} \
	find ${BUILD_DIR:Q} ! \( ${_PRODUCTS} ${ROOTFS:D-o -path ${BUILD_DIR:Q}/${ROOTFS:Q} -o -path ${BUILD_DIR:Q}/${ROOTFS:Q}/'*'} \) | sort; }
.if !make(clean) && !make(clean.*) && exists(${ACI_ID_FILE})
_CHANGED != find -H ${BUILD_DIR:Q} ${BUILD_CP:N.jetpack.make} ${.MAKE.MAKEFILES:N/usr/share/mk/*} ${ROOTFS:Q} -newercm ${ACI_ID_FILE:Q} \
	! -path ${BUILD_DIR:Q} ! \( ${_PRODUCTS} \) | head -n 1; \
	${_FROM} | cmp -s - ${ACI_ID_FILE:Q}.from || echo other; \
	${_JETPACK} image manifest `cat ${ACI_ID_FILE:Q}` >/dev/null 2>&1 || echo gone
.if !empty(_CHANGED)
.PHONY: ${ACI_ID_FILE}
.endif
.endif

${ACI_ID_FILE}:
.if !empty(ROOTFS)
	${MAKE} prepare
	${MAKE} manifest.json
	${_JETPACK} image create --rootfs=${ROOTFS:Q} --manifest=manifest.json >${.TARGET:Q}.new
	mv ${.TARGET:Q}.new ${.TARGET:Q}
.elif empty(PARENT_IMAGE)
	@echo "jetpack.image.mk: neither PARENT_IMAGE nor ROOTFS is defined" >&2; exit 1
.else
	${MAKE} prepare
	${_JETPACK} image build --net=${BUILD_NET} --dir=${BUILD_DIR:Q} ${BUILD_CP:@f@--cp=${f:Q}@} \
		--save-id=${.TARGET:Q} ${BUILD_FLAGS} ${PARENT_IMAGE:Q} -- ${BUILD_COMMAND} ${BUILD_ARGS}
.endif
	@${_FROM} >${.TARGET:Q}.from

aci: ${ACI_FILE} .PHONY
${ACI_FILE}: ${ACI_ID_FILE}
	${_JETPACK} image export `cat ${ACI_ID_FILE:Q}` ${.TARGET:Q}

flat-aci: ${FLAT_ACI_FILE} .PHONY
${FLAT_ACI_FILE}: ${ACI_ID_FILE}
	${_JETPACK} image export --flat `cat ${ACI_ID_FILE:Q}` ${.TARGET:Q}

_SIGN = ${SIGN_KEY:D--sign=${SIGN_KEY:Q}} ${SIGN_GPG:D--gpg=${SIGN_GPG:Q}}

sign: ${ACI_FILE}.asc .PHONY
${ACI_FILE}.asc: ${ACI_FILE}
	${_JETPACK} image sign ${_SIGN} ${ACI_FILE:Q}

publish: ${ACI_FILE} .PHONY
.if empty(REPO)
	@echo "jetpack.image.mk: REPO is not defined: the directory of a repository" >&2; exit 1
.endif
	${_JETPACK} repo add --replace ${_SIGN} ${REPO:Q} ${ACI_FILE:Q}

prepare: ${.ALLTARGETS:Mprepare.*:Nprepare..*} .PHONY

# The host's make, with what it is linked to.
prepare..make: .PHONY
	@sh ${_SHARE:Q}/jetpack.make --take .jetpack.make ${.MAKE:Q}

clean: ${.ALLTARGETS:Mclean.*:Nclean..*} clean..files .PHONY
clean..files: .PHONY
	rm -rf ${CLEAN_FILES:@f@${f:Q}@}

.endif
