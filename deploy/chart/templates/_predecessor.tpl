{{/*
The values of keepalived-ingress-vip (0.1.2 to 0.1.4) as ours. What they meant there, they mean here: a Deployment of two, the
checks on, the defaults of that chart. What cannot be the same is said in `remarks`, which NOTES.txt shows.
*/}}

{{- define "viplane.isPredecessor" -}}
{{- if or (hasKey .Values "keepalived") (hasKey .Values "pod") }}true{{ end -}}
{{- end -}}

{{/* A yes or no of the old values, which may be a text: (dict "in" MAP "key" KEY "default" BOOL) */}}
{{- define "viplane.flag" -}}
{{- $value := get .in .key -}}
{{- if or (not (hasKey .in .key)) (kindIs "invalid" $value) (eq (toString $value) "") -}}
{{- if .default }}true{{ end -}}
{{- else if eq (toString $value | lower) "true" -}}true
{{- end -}}
{{- end -}}

{{/* A number of the old values, as milliseconds of so many seconds: (dict "of" VALUE "default" SECONDS) */}}
{{- define "viplane.milliseconds" -}}
{{- int (round (mulf (include "viplane.text" .of | default (toString .default) | float64) 1000.0) 0) -}}
{{- end -}}

{{/* A check of the old chart as a probe: its time-out was nine tenths of the interval, five seconds at most. */}}
{{- define "viplane.oldProbe" -}}
{{- $interval := include "viplane.milliseconds" (dict "of" .interval "default" .defaultInterval) | int -}}
{{- $probe := dict "name" .name "interval" (ternary (printf "%ds" (div $interval 1000)) (printf "%dms" $interval) (eq (mod $interval 1000) 0)) "timeout" (printf "%dms" (min 5000 (div (mul $interval 9) 10))) -}}
{{- $_ := set $probe "fall" (include "viplane.text" .failAfter | default (toString .defaultFailAfter) | int) -}}
{{- $_ := set $probe "rise" 2 -}}
{{- if .preset -}}
{{- $_ := set $probe "preset" .preset -}}
{{- else -}}
{{- $http := dict "url" .url -}}
{{- if regexMatch "(?i)^http://[^/?#]*:6443([/?#]|$)" .url -}}
{{- $_ := set $http "url" (regexReplaceAll "(?i)^http://" .url "https://") -}}
{{- $_ := set $http "status" (list 200 401) -}}
{{- end -}}
{{- if hasPrefix "https://" (lower $http.url) }}{{ $_ := set $http "insecure" true }}{{ end -}}
{{- $_ := set $probe "http" $http -}}
{{- end -}}
{{- toYaml $probe -}}
{{- end -}}

{{- define "viplane.oldServiceUrl" -}}
{{- $old := .Values.keepalived | default dict -}}
{{- $old.checkServiceUrl | default $old.ingressHealthzUrl | default "http://127.0.0.1:10254/healthz" -}}
{{- end -}}

{{- define "viplane.oldKubeletUrl" -}}
{{- $old := .Values.keepalived | default dict -}}
{{- $old.checkKubeletUrl | default $old.kubeletHealthzUrl | default "http://127.0.0.1:10248/healthz" -}}
{{- end -}}

{{/* The password of version 2; empty where there is none, or version 2 cannot be: it has no IPv6. */}}
{{- define "viplane.oldPassword" -}}
{{- $old := .Values.keepalived | default dict -}}
{{- if not (contains ":" (toString $old.vipAddressCidr)) }}{{ include "viplane.text" $old.authPassword | trunc 8 }}{{ end -}}
{{- end -}}

{{/* Probes and the instance, as a file of docs/configuration.md. */}}
{{- define "viplane.oldConfig" -}}
{{- $old := .Values.keepalived | default dict -}}
{{- $vip := include "viplane.text" $old.vipAddressCidr | trim -}}
{{- if not $vip }}{{ fail "keepalived.vipAddressCidr is missing: the address that the nodes share, such as 192.168.11.2/24" }}{{ end -}}
{{- $service := dict "name" "service" "url" (include "viplane.oldServiceUrl" .) "interval" $old.checkServiceInterval "defaultInterval" 2 "failAfter" $old.checkServiceFailAfter "defaultFailAfter" 2 -}}
{{- $probes := list (include "viplane.oldProbe" $service | fromYaml) -}}
{{- if include "viplane.flag" (dict "in" $old "key" "checkKubelet" "default" true) -}}
{{- $kubelet := dict "name" "kubelet" "url" (include "viplane.oldKubeletUrl" .) "interval" $old.checkKubeletInterval "defaultInterval" 5 "failAfter" $old.checkKubeletFailAfter "defaultFailAfter" 5 -}}
{{- $probes = append $probes (include "viplane.oldProbe" $kubelet | fromYaml) -}}
{{- end -}}
{{- if include "viplane.flag" (dict "in" $old "key" "checkKubeApi" "default" true) -}}
{{- $api := dict "name" "kube-api" "preset" "kube_api" "interval" $old.checkKubeApiInterval "defaultInterval" 5 "failAfter" $old.checkKubeApiFailAfter "defaultFailAfter" 5 -}}
{{- $probes = append $probes (include "viplane.oldProbe" $api | fromYaml | merge (dict "weight" -40)) -}}
{{- end -}}
{{- $track := list -}}
{{- range $probes }}{{ $track = append $track .name }}{{ end -}}
{{- $id := include "viplane.text" $old.virtualRouterId | default "10" | int -}}
{{- $instance := dict "name" "cluster-vip" "virtual_router_id" $id "interface" ($old.vrrpInterfaceName | default "eth0") "vip_interface" ($old.vipInterfaceName | default "eth0") "vips" (list $vip) "track" $track -}}
{{- if include "viplane.flag" (dict "in" $old "key" "vrrpNoPreempt" "default" false) -}}
{{- $_ := set $instance "preempt" false -}}
{{- else -}}
{{- $_ := set $instance "preempt_delay" "5s" -}}
{{- end -}}
{{- if include "viplane.oldPassword" . -}}
{{- $_ := set $instance "version" 2 -}}
{{- $_ := set $instance "auth" (dict "password_file" "/run/secrets/viplane-auth/password") -}}
{{- else -}}
{{- $_ := set $instance "advert_interval" "100ms" -}}
{{- end -}}
{{- $config := dict "probes" $probes "instances" (list $instance) -}}
{{- $debug := dict "in" $old "key" "debug" "default" (include "viplane.flag" (dict "in" $old "key" "enableDebug" "default" false)) -}}
{{- if include "viplane.flag" $debug }}{{ $_ := set $config "log" (dict "level" "debug") }}{{ end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* That chart's tolerations: its own, or its default, and those of masters. */}}
{{- define "viplane.oldTolerations" -}}
{{- $pod := .Values.pod | default dict -}}
{{- $soon := list -}}
{{- range list "node.kubernetes.io/unreachable" "node.kubernetes.io/not-ready" -}}
{{- $soon = append $soon (dict "key" . "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" 15) -}}
{{- end -}}
{{- $tolerations := $pod.tolerations | default $soon -}}
{{- if include "viplane.flag" (dict "in" $pod "key" "tolerateMasterTaints" "default" false) -}}
{{- $tolerations = append $tolerations (dict "key" "node-role.kubernetes.io/controlplane" "operator" "Equal" "value" "true" "effect" "NoSchedule") -}}
{{- $tolerations = append $tolerations (dict "key" "node-role.kubernetes.io/etcd" "operator" "Equal" "value" "true" "effect" "NoExecute") -}}
{{- range $key := list "node-role.kubernetes.io/control-plane" "node-role.kubernetes.io/master" -}}
{{- $tolerations = append $tolerations (dict "key" $key "operator" "Exists") -}}
{{- end -}}
{{- end -}}
{{- toYaml $tolerations -}}
{{- end -}}
