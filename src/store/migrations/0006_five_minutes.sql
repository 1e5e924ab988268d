-- A level of roll-ups between minute and hour. Money is added up in millionths and rests: a sum that leaves SQLite's integers
-- would end the migration, and stays at their end instead.

INSERT INTO rollups
SELECT 300000, grain, bucket_ms / 300000 * 300000 AS five, tenant_id, key_id, model, sum(requests), sum(errors), sum(dispatched),
       sum(input_tokens), sum(cached_input_tokens), sum(output_tokens),
       iif(sum(input_pico / 1000000) > 9223372036000, 9223372036854775807, sum(input_pico / 1000000) * 1000000 + sum(input_pico % 1000000)),
       iif(sum(output_pico / 1000000) > 9223372036000, 9223372036854775807, sum(output_pico / 1000000) * 1000000 + sum(output_pico % 1000000)),
       iif(sum(request_pico / 1000000) > 9223372036000, 9223372036854775807, sum(request_pico / 1000000) * 1000000 + sum(request_pico % 1000000)),
       sum(hits), sum(misses), sum(bypasses), sum(coalesced), sum(saved_tokens),
       iif(sum(saved_pico / 1000000) > 9223372036000, 9223372036854775807, sum(saved_pico / 1000000) * 1000000 + sum(saved_pico % 1000000))
FROM rollups
WHERE level_ms = 60000
GROUP BY grain, five, tenant_id, key_id, model;
