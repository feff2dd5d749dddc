"""Photos from outside: COCO, tables of captions, shards."""
