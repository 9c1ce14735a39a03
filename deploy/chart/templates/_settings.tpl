{{/* What the values come to, ours and the predecessor's alike. */}}

{{- define "viplane.kind" -}}
{{- $kind := lower .Values.kind -}}
{{- if eq $kind "daemonset" -}}DaemonSet
{{- else if eq $kind "deployment" -}}Deployment
{{- else -}}{{ ternary "Deployment" "DaemonSet" (eq (include "viplane.isPredecessor" .) "true") }}
{{- end -}}
{{- end -}}

{{- define "viplane.replicas" -}}
{{- $pod := .Values.pod | default dict -}}
{{- include "viplane.text" (ternary $pod.replicas .Values.replicas (hasKey $pod "replicas")) | default "2" -}}
{{- end -}}

{{/* Not the image of keepalived-ingress-vip, wherever it was mirrored, nor its tag alone. */}}
{{- define "viplane.oldImage" -}}
{{- $oldTag := and (include "viplane.isPredecessor" .) (regexMatch "^v0\\.1\\.[0-4]$" (include "viplane.text" .Values.image.tag)) -}}
{{- if or (regexMatch "(^|/)keepalived-ingress-vip$" .Values.image.repository) (and $oldTag (eq .Values.image.repository .Chart.Name)) }}true{{ end -}}
{{- end -}}

{{- define "viplane.image" -}}
{{- if include "viplane.oldImage" . -}}
{{ .Chart.Name }}:{{ .Chart.AppVersion }}
{{- else -}}
{{ .Values.image.repository }}:{{ include "viplane.text" .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* At most this was too little: (dict "of" RESOURCES "kind" "limits" "what" "memory" "least" "64Mi") yields "true". */}}
{{- define "viplane.isTooLittle" -}}
{{- $given := get .of .kind | default dict -}}
{{- if not (kindIs "invalid" (get $given .what)) -}}
{{- if and (hasKey $given .what) (lt (include "viplane.quantity" (get $given .what) | float64) (include "viplane.quantity" .least | float64)) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* Whether the agent loads the programs of steering, whose maps the kernel counts to the pod: "true". */}}
{{- define "viplane.steers" -}}
{{- $kubernetes := .Values.kubernetes | default dict -}}
{{- if or (get (.Values.config | default dict) "services") (and $kubernetes (ne (toString (get $kubernetes "steering")) "false")) }}true{{ end -}}
{{- end -}}

{{/*
What an agent needs: docs/installing.md has the figures. Limits below are what killed it, or slowed it down until its adverts
came late, so they are raised; requests follow, lest the node be promised to others.
*/}}
{{- define "viplane.needs" -}}
limits: { memory: {{ ternary "256Mi" "64Mi" (eq (include "viplane.steers" .) "true") }}, cpu: 250m }
requests: { memory: 24Mi }
{{- end -}}

{{- define "viplane.resources" -}}
{{- $pod := .Values.pod | default dict -}}
{{- $resources := deepCopy ($pod.resources | default .Values.resources | default dict) -}}
{{- range $kind, $needs := include "viplane.needs" . | fromYaml -}}
{{- range $what, $least := $needs -}}
{{- if include "viplane.isTooLittle" (dict "of" $resources "kind" $kind "what" $what "least" $least) -}}
{{- $_ := set (get $resources $kind) $what $least -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "viplane.priorityClassName" -}}
{{- $pod := .Values.pod | default dict -}}
{{- $usual := ternary "system-node-critical" "system-cluster-critical" (eq (include "viplane.kind" .) "DaemonSet") -}}
{{- if include "viplane.isPredecessor" . }}{{ $usual = "system-cluster-critical" }}{{ end -}}
{{- $pod.priorityClassName | default .Values.priorityClassName | default $usual -}}
{{- end -}}

{{/* The port of api.listen, and the host that the kubelet, in the same network, asks. */}}
{{- define "viplane.apiPort" -}}
{{- regexFind "[0-9]+$" .Values.api.listen -}}
{{- end -}}

{{- define "viplane.apiHost" -}}
{{- $host := regexReplaceAll ":[0-9]+$" .Values.api.listen "" | trimPrefix "[" | trimSuffix "]" -}}
{{- if eq $host "0.0.0.0" }}127.0.0.1{{ else if eq $host "::" }}::1{{ else }}{{ $host }}{{ end -}}
{{- end -}}

{{- define "viplane.apiIsLocal" -}}
{{- if or (hasPrefix "127." .Values.api.listen) (hasPrefix "[::1]" .Values.api.listen) }}true{{ end -}}
{{- end -}}

{{/* Whether an object of the Prometheus operator is made: (dict "root" . "kind" KIND "wanted" VALUE) */}}
{{- define "viplane.monitors" -}}
{{- $local := include "viplane.apiIsLocal" .root -}}
{{- if eq (toString .wanted) "true" -}}
{{- if $local }}{{ fail (printf "metrics: a %s needs an api.listen that Prometheus reaches, such as 0.0.0.0:9870, not %s" .kind .root.Values.api.listen) }}{{ end -}}
true
{{- else if and (eq (toString .wanted) "auto") (not $local) (.root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind)) -}}
true
{{- end -}}
{{- end -}}

{{- define "viplane.signingSecret" -}}
{{- .Values.signing.existingSecret | default (printf "%s-signing" (include "viplane.fullname" .)) -}}
{{- end -}}

{{/* Whether a probe asks the API server. */}}
{{- define "viplane.asksKubeApi" -}}
{{- range (include "viplane.config" . | fromYaml).probes -}}
{{- if eq (default "" .preset) "kube_api" }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* The agents' file. */}}
{{- define "viplane.config" -}}
{{- $old := dict -}}
{{- if include "viplane.isPredecessor" . }}{{ $old = include "viplane.oldConfig" . | fromYaml }}{{ end -}}
{{- $api := dict "listen" .Values.api.listen -}}
{{- if .Values.api.tlsSecret -}}
{{- $_ := set $api "tls" (dict "cert_file" "/run/secrets/viplane-tls/tls.crt" "key_file" "/run/secrets/viplane-tls/tls.key") -}}
{{- end -}}
{{- if .Values.api.tokenSecret }}{{ $_ := set $api "token_file" "/run/secrets/viplane-token/token" }}{{ end -}}
{{- $config := dict "reload_on_change" true "api" $api "runtime_dir" .Values.hostPaths.runtime "state_dir" .Values.hostPaths.state "pin_dir" (printf "%s/viplane" .Values.hostPaths.bpf) -}}
{{- if $old.log }}{{ $_ := set $config "log" $old.log }}{{ end -}}
{{- with .Values.kubernetes }}{{ $_ := set $config "kubernetes" . }}{{ end -}}
{{- $config = mergeOverwrite $config (deepCopy .Values.config) -}}
{{- $_ := set $config "probes" (concat (list) ($old.probes | default list) .Values.probes | default list) -}}
{{- $instances := list -}}
{{- range concat ($old.instances | default list) .Values.instances -}}
{{- $instance := deepCopy . -}}
{{- if and $.Values.signing.enabled (not (hasKey $instance "auth_trailer")) -}}
{{- $_ := set $instance "auth_trailer" (dict "key_file" "/run/secrets/viplane-signing/key") -}}
{{- end -}}
{{- $instances = append $instances $instance -}}
{{- end -}}
{{- $_ := set $config "instances" $instances -}}
{{- toYaml $config -}}
{{- end -}}
