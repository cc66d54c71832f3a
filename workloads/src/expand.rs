//! A plan and its workloads become jobs: tools × workloads × arms × replicas.
