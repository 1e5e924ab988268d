//! Pages as engines write them.

use super::*;

const VLLM_PAGE: &str = r#"# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 11873.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 31.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-8B"} 29.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 4.0
vllm:num_requests_waiting{engine="1",model_name="Qwen/Qwen3-8B"} 0.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="Qwen/Qwen3-8B",reason="capacity"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-8B"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="Qwen/Qwen3-8B"} 0.25
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="Qwen/Qwen3-8B"} 1.048576e+06
vllm:generation_tokens_total{engine="1",model_name="Qwen/Qwen3-8B"} 24.0
# TYPE vllm:inter_token_latency_seconds histogram
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.01",model_name="Qwen/Qwen3-8B"} 12.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf",model_name="Qwen/Qwen3-8B"} 1000.0
vllm:inter_token_latency_seconds_count{engine="0",model_name="Qwen/Qwen3-8B"} 1000.0
vllm:inter_token_latency_seconds_sum{engine="0",model_name="Qwen/Qwen3-8B"} 20.5
"#;

#[test]
fn vllm_inner_engines_are_added_up_and_their_cache_use_is_averaged() {
    let signals = read(Engine::Vllm, VLLM_PAGE).unwrap();
    assert_eq!(signals.running, Some(60.0));
    assert_eq!(signals.waiting, Some(4.0), "by_reason counts the same requests again");
    assert_eq!(signals.kv_use, Some(0.375));
    assert_eq!(signals.generated, Some(1_048_600.0));
    let time = signals.token_time.unwrap();
    assert_eq!((time.seconds, time.tokens), (20.5, 1000.0));
}

#[test]
fn older_names_and_names_under_ray_are_understood() {
    let page = "vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.75\nvllm:num_requests_waiting{model_name=\"m\"} 1.0\n";
    assert_eq!(read(Engine::Vllm, page).unwrap().kv_use, Some(0.75));
    let page = "ray_vllm_num_requests_running{ReplicaId=\"r\",model_name=\"m\"} 7.0\n";
    assert_eq!(read(Engine::Vllm, page).unwrap().running, Some(7.0));
}

#[test]
fn sglang_and_llama_cpp_and_tgi_have_names_of_their_own() {
    let sglang = "# TYPE sglang:num_running_reqs gauge\nsglang:num_running_reqs{model_name=\"m\",tp_rank=\"0\"} 12.0\n\
                  sglang:num_queue_reqs{model_name=\"m\",tp_rank=\"0\"} 3.0\nsglang:token_usage{model_name=\"m\"} 0.28\n";
    let signals = read(Engine::Sglang, sglang).unwrap();
    assert_eq!(
        (signals.running, signals.waiting, signals.kv_use),
        (Some(12.0), Some(3.0), Some(0.28))
    );
    let llama = "# HELP llamacpp:requests_processing Number of requests processing.\nllamacpp:requests_processing 2\n\
                 llamacpp:requests_deferred 5\nllamacpp:tokens_predicted_total 300\nllamacpp:tokens_predicted_seconds_total 12.5\n";
    let signals = read(Engine::LlamaCpp, llama).unwrap();
    assert_eq!((signals.running, signals.waiting, signals.kv_use), (Some(2.0), Some(5.0), None));
    assert_eq!(
        signals.token_time,
        Some(TokenTime {
            seconds: 12.5,
            tokens: 300.0
        })
    );
    let tgi = "tgi_batch_current_size 4\ntgi_queue_size 1\n";
    let signals = read(Engine::Tgi, tgi).unwrap();
    assert_eq!((signals.running, signals.waiting), (Some(4.0), Some(1.0)));
}

#[test]
fn what_a_page_does_not_say_is_unknown_and_a_page_without_load_is_none() {
    let signals = read(Engine::Vllm, "vllm:num_requests_running 3\n").unwrap();
    assert_eq!((signals.waiting, signals.kv_use, signals.token_time), (None, None, None));
    assert_eq!(read(Engine::Vllm, "vllm:generation_tokens_total 3\nprocess_open_fds 20\n"), None);
    assert_eq!(read(Engine::Vllm, "<html>404</html>"), None);
    assert_eq!(read(Engine::Ollama, "vllm:num_requests_running 3\n"), None);
}

#[test]
fn label_values_may_hold_braces_commas_and_quotes() {
    let page = "vllm:num_requests_running{model_name=\"a}b, \\\"c\\\" {d\\\\\"} 3 1712345678000\n";
    assert_eq!(read(Engine::Vllm, page).unwrap().running, Some(3.0));
}

#[test]
fn values_that_are_no_counts_are_no_samples() {
    for value in ["NaN", "+Inf", "-1", "three", ""] {
        assert_eq!(read(Engine::Vllm, &format!("vllm:num_requests_running {value}\n")), None, "{value}");
    }
    assert_eq!(read(Engine::Vllm, "vllm:num_requests_running{open=\"x 3\n"), None);
}

#[test]
fn others_and_waiting_requests_and_a_full_cache_count_on_top_of_ours() {
    let signals = |running, waiting, kv_use| Signals {
        running,
        waiting,
        kv_use,
        ..Signals::default()
    };
    assert_eq!(signals(Some(10.0), Some(0.0), None).extra(10), 0, "all of it is ours");
    assert_eq!(
        signals(Some(10.0), Some(0.0), None).extra(12),
        0,
        "ours that it has not counted yet"
    );
    assert_eq!(signals(Some(10.0), Some(4.0), None).extra(10), 8, "four of others, and four wait");
    assert_eq!(signals(Some(10.0), None, Some(0.95)).extra(10), 5, "half of the tight range");
    assert_eq!(Signals::default().extra(7), 0, "unknown is not loaded");
    assert_eq!(signals(Some(f64::MAX), None, None).extra(0), u32::MAX / 4);
}

#[test]
fn token_times_come_from_the_engine_or_else_from_its_throughput() {
    let page = |seconds, tokens| Signals {
        token_time: Some(TokenTime { seconds, tokens }),
        ..Signals::default()
    };
    let second = Duration::from_secs(1);
    let time = page(3.0, 150.0).token_time_since(&page(1.0, 50.0), second).unwrap();
    assert_eq!((time.seconds, time.tokens), (2.0, 100.0));
    assert_eq!(page(1.0, 50.0).token_time_since(&page(3.0, 150.0), second), None, "restarted");
    assert_eq!(page(1.0, 50.0).token_time_since(&page(1.0, 50.0), second), None, "idle");
    let made = |running, generated| Signals {
        running: Some(running),
        generated: Some(generated),
        ..Signals::default()
    };
    let time = made(10.0, 600.0).token_time_since(&made(6.0, 200.0), 2 * second).unwrap();
    assert_eq!((time.seconds, time.tokens), (16.0, 400.0));
}
