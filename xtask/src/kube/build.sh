# Builds kube-apiserver, kube-controller-manager and kube-scheduler into the folder $1, from the source package that Debian 12 has of
# Kubernetes 1.20 (its tree carries every dependency, so nothing is fetched but packages), by Debian's own Go 1.19.
# It touches neither apt's set-up nor anything outside of $1.

out=$1
go_root=/usr/lib/go-1.19
programs='kube-apiserver kube-controller-manager kube-scheduler'
work=$out/build
lists=$work/apt

say() { echo "kube: $*" >&2; }
fail() { say "$*"; exit 1; }

[ -x "$go_root/bin/go" ] || fail "there is no $go_root/bin/go: install the package golang-1.19-go"

# What was compiled stays: one that was interrupted goes on.
[ ! -e "$work" ] || chmod -R u+w "$work"
rm -rf "$work/apt" "$work/gopath"
mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" "$lists/sources" "$work/gopath/src/k8s.io"

# Debian's sources by a list of our own: the system's may name binary packages only.
if [ -e /etc/apt/sources.list.d/debian.sources ]; then
  awk '/^Types:/ {$2 = "deb-src"; NF = 2} {print}' /etc/apt/sources.list.d/debian.sources >"$lists/sources/debian.sources"
else
  sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$lists/sources/debian.list"
fi
apt() {
  command=$1
  shift
  "apt-$command" -oDir::State::Lists="$lists/lists" -oDir::Cache="$lists/cache" -oDir::Etc::SourceList=/dev/null \
    -oDir::Etc::SourceParts="$lists/sources" -oAPT::Sandbox::User="$(id -un)" "$@"
}
say 'fetching the source package'
apt get -qq update >&2 || fail 'the lists of source packages cannot be fetched'
(cd "$work" && apt get -qq source --download-only kubernetes >&2) ||
  fail "apt has no source package kubernetes here (Debian 12 has): set VIPLANE_KUBERNETES to a folder with $programs"
tree=$work/gopath/src/k8s.io/kubernetes
dpkg-source --no-check -x "$work"/kubernetes_1.20*.dsc "$tree" >/dev/null || fail 'the source package cannot be unpacked'

export PATH="$go_root/bin:$PATH" GOPATH="$work/gopath" GOCACHE="$work/cache" GO111MODULE=off GOFLAGS='' CGO_ENABLED=0
cd "$tree"
# Its own reflect2 1.0.1 crashes under Go 1.18 and later; Debian's package of it is newer.
rm vendor/github.com/modern-go/reflect2/*
cp /usr/share/gocode/src/github.com/modern-go/reflect2/* vendor/github.com/modern-go/reflect2/

# The one generated file that the source package leaves out.
go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=true' pkg staging/src vendor/k8s.io | grep -v _test | xargs -n1 dirname |
  sed 's#^staging/src/#k8s.io/kubernetes/vendor/#; s#^vendor/#k8s.io/kubernetes/vendor/#; s#^pkg/#k8s.io/kubernetes/pkg/#' |
  sort -u | grep -v 'examples\|sample\|kube-openapi/test\|code-generator\|integration' | paste -sd,)
"$work/openapi-gen" -O zz_generated.openapi --go-header-file hack/boilerplate/boilerplate.generatego.txt \
  -p k8s.io/kubernetes/pkg/generated/openapi -i "$packages" -r "$work/report.txt" 2>/dev/null

v=k8s.io/component-base/version
for program in $programs; do
  say "building $program"
  go build -ldflags "-s -w -X $v.gitVersion=v1.20.2 -X $v.gitMajor=1 -X $v.gitMinor=20" -o "$work/$program" "./cmd/$program"
done
# All or nothing: whoever finds one of them finds the others.
for program in $programs; do mv "$work/$program" "$out/$program"; done
chmod -R u+w "$work" && rm -rf "$work"
