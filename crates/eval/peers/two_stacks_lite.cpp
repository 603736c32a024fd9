// What IBM's two_stacks_lite costs an event: a sample in, one out, and the standard deviation of 300 of them.
// It sums values and squares, which loses all digits when the mean is far from zero; ours does not, and pays for it.
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>

#define _IFDEBUG(x)
#include "AggregationFunctions.hpp"
#include "TwoStacksLite.hpp"

int main() {
  const int window = 300, events = 2000000;
  SampleStdDev<double> deviation;
  auto aggregate = twostackslite::make_aggregate(deviation, SampleStdDev<double>::identity);
  uint64_t noise = 1;
  double sum = 0;
  auto step = [&](bool full) {
    noise = noise * 6364136223846793005u + 1442695040888963407u;
    aggregate.insert(50 + static_cast<double>(noise >> 40) / (1 << 24));
    if (full) {
      aggregate.evict();
      sum += aggregate.query();
    }
  };
  for (int i = 0; i < window; i++) step(false);
  auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < events; i++) step(true);
  std::chrono::duration<double, std::nano> elapsed = std::chrono::steady_clock::now() - start;
  std::printf("%.2f\n", elapsed.count() / events);
  return sum > 0 ? 0 : 1;
}
