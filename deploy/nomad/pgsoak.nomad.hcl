# A coordinator and an agent on every client with meta pgsoak_agent = "true"; both as plain binaries (raw_exec keeps the runners of an
# agent alive over its restart only with KillMode-like settings of the client: drain first).
job "pgsoak-coordinator" {
  datacenters = ["*"]
  group "coordinator" {
    network {
      port "grpc" { static = 7420 }
      port "http" { static = 7421 }
    }
    volume "data" {
      type   = "host"
      source = "pgsoak"
    }
    task "coordinator" {
      driver = "exec"
      config { command = "/usr/local/bin/pgsoak", args = ["coordinator"] }
      env {
        PGSOAK_COORDINATOR_DATA = "/data/coordinator"
        PGSOAK_LISTEN           = "${NOMAD_ADDR_grpc}"
        PGSOAK_HTTP_LISTEN      = "${NOMAD_ADDR_http}"
      }
      volume_mount {
        volume      = "data"
        destination = "/data"
      }
      service {
        name     = "pgsoak-http"
        port     = "http"
        provider = "nomad"
        check {
          type     = "http"
          path     = "/readyz"
          interval = "10s"
          timeout  = "6s"
        }
      }
    }
  }
}
