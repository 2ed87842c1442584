"""What every study uses: what a study is, how it is run and told, its cache, its intervals and its words."""
