"""What serving costs: prices of instance types, throughput on them, money per million answers."""
