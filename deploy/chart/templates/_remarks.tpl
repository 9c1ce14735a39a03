{{/* A line for each thing that is not as the values said: a YAML list of texts, shown by NOTES.txt. */}}

{{- define "viplane.remarks" -}}
{{- $remarks := list -}}
{{- if include "viplane.oldImage" . -}}
{{- $remarks = append $remarks (printf "image: %s:%s is keepalived-ingress-vip's and was ignored; this is %s" .Values.image.repository (include "viplane.text" .Values.image.tag) (include "viplane.image" .)) -}}
{{- end -}}
{{- if .Values.rbac.pspEnabled -}}
{{- $remarks = append $remarks "rbac.pspEnabled: PodSecurityPolicy is gone from Kubernetes; label the namespace pod-security.kubernetes.io/enforce=privileged instead" -}}
{{- end -}}
{{- if eq .Values.kind "Daemonset" -}}
{{- $remarks = append $remarks "kind: Daemonset is taken for DaemonSet" -}}
{{- end -}}
{{- $pod := .Values.pod | default dict -}}
{{- $given := $pod.resources | default .Values.resources | default dict -}}
{{- range $kind, $needs := include "viplane.needs" . | fromYaml -}}
{{- range $what, $least := $needs -}}
{{- if include "viplane.isTooLittle" (dict "of" $given "kind" $kind "what" $what "least" $least) -}}
{{- $name := ternary "pod.resources" "resources" (hasKey $pod "resources") -}}
{{- $remarks = append $remarks (printf "%s.%s.%s: %s was raised to %s, which the agent and its BPF maps need" $name $kind $what (include "viplane.text" (get (get $given $kind) $what)) $least) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if include "viplane.isPredecessor" . -}}
{{- $remarks = concat $remarks (include "viplane.oldRemarks" . | fromYamlArray) -}}
{{- end -}}
{{- toYaml $remarks -}}
{{- end -}}

{{- define "viplane.oldRemarks" -}}
{{- $old := .Values.keepalived | default dict -}}
{{- $remarks := list "keepalived, pod: values of keepalived-ingress-vip, understood with its defaults; `vip-agent import chart-values FILE` prints them as ours" -}}
{{- if not .Values.kind -}}
{{- $remarks = append $remarks (printf "kind: a Deployment of %s, as that chart's default was; `kind: DaemonSet` runs an agent on every node" (include "viplane.replicas" .)) -}}
{{- end -}}
{{- $url := include "viplane.oldServiceUrl" . -}}
{{- if regexMatch "(?i)^http://[^/?#]*:6443([/?#]|$)" $url -}}
{{- $remarks = append $remarks (printf "keepalived.checkServiceUrl: %s was turned into https, for 6443 answers nothing else; a 401 is an API server that lives and refuses strangers; its certificate is not verified, and no token is sent" $url) -}}
{{- else if hasPrefix "https://" (lower $url) -}}
{{- $remarks = append $remarks "keepalived.checkServiceUrl: the certificate is not verified, as it was not there; no token is sent" -}}
{{- end -}}
{{- if and (include "viplane.flag" (dict "in" $old "key" "checkKubelet" "default" true)) (ne (include "viplane.oldKubeletUrl" .) "http://127.0.0.1:10248/healthz") -}}
{{- $remarks = append $remarks "keepalived.checkKubeletUrl: is asked now; that chart asked checkServiceUrl in its place" -}}
{{- end -}}
{{- if include "viplane.oldPassword" . -}}
{{- $remarks = append $remarks "keepalived.authPassword: VRRP version 2 with adverts of 1s and this password, so that agents and keepalived-ingress-vip can own in turn while you change over. Leave it out afterwards: version 3, adverts of 100ms; and signing.enabled=true for a secret that protects" -}}
{{- else if $old.authPassword -}}
{{- $remarks = append $remarks "keepalived.authPassword: IPv6 takes version 3, which has no password, with keepalived as well; signing.enabled=true signs the adverts" -}}
{{- else -}}
{{- $remarks = append $remarks "keepalived.authPassword: none, so VRRP version 3 with adverts of 100ms, which keepalived-ingress-vip does not hear: uninstall that first. Its default could be computed from release and namespace; signing.enabled=true makes a real secret" -}}
{{- end -}}
{{- if gt (len (include "viplane.text" $old.authPassword)) 8 -}}
{{- $remarks = append $remarks "keepalived.authPassword: only the first 8 characters count, with keepalived as well" -}}
{{- end -}}
{{- range $was, $is := dict "enableDebug" "debug" "ingressHealthzUrl" "checkServiceUrl" "kubeletHealthzUrl" "checkKubeletUrl" -}}
{{- if and (hasKey $old $was) (not (kindIs "invalid" (get $old $was))) -}}
{{- $remarks = append $remarks (printf "keepalived.%s: the name of keepalived-ingress-vip up to 0.1.3, taken for %s" $was $is) -}}
{{- end -}}
{{- end -}}
{{- toYaml $remarks -}}
{{- end -}}
