//! The series of a shard, each at a fixed place, found by hash.

use anomaly_prefetch::prefetch;
use hashbrown::HashTable;

use crate::series::Series;
use crate::series_key::SeriesHash;

/// Series a page: a page is allocated at once and never moved, so growing copies nothing.
const PAGE: usize = 256;

/// The series of a shard. A place that is freed is used again.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    /// The mark of a hash, and the place. So small that the index of many series stays in a cache; whether it is the very
    /// series, the series itself tells.
    index: HashTable<(u32, u32)>,
    pages: Vec<Vec<Option<Series>>>,
    free: Vec<u32>,
    /// While set, freed places are kept aside (see [`Slab::keep_places`]).
    aside: Option<Vec<u32>>,
}

impl Slab {
    /// The place of a series.
    pub(crate) fn find(&self, hash: SeriesHash, key: &[u8]) -> Option<u32> {
        self.find_if(hash, |series| series.key.as_bytes() == key)
    }

    /// The place of the series with this hash.
    pub(crate) fn find_hash(&self, hash: SeriesHash) -> Option<u32> {
        self.find_if(hash, |series| series.key.hash() == hash)
    }

    /// Where the series with this hash is, if it is anywhere; another series may be there instead.
    pub(crate) fn guess(&self, hash: SeriesHash) -> Option<u32> {
        let mark = mark(hash);
        self.index.find(spread(mark), |entry| entry.0 == mark).map(|entry| entry.1)
    }

    fn find_if(&self, hash: SeriesHash, is_it: impl Fn(&Series) -> bool) -> Option<u32> {
        let mark = mark(hash);
        self.index.find(spread(mark), |entry| entry.0 == mark && self.get(entry.1).is_some_and(&is_it)).map(|entry| entry.1)
    }

    pub(crate) fn get(&self, place: u32) -> Option<&Series> {
        self.pages.get(place as usize / PAGE)?.get(place as usize % PAGE)?.as_ref()
    }

    /// Has fetched the series at a place.
    #[inline(always)]
    pub(crate) fn prefetch(&self, place: u32) {
        if let Some(series) = self.pages.get(place as usize / PAGE).and_then(|page| page.get(place as usize % PAGE)) {
            prefetch(series);
        }
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut Series> {
        self.pages.get_mut(place as usize / PAGE)?.get_mut(place as usize % PAGE)?.as_mut()
    }

    pub(crate) fn insert(&mut self, series: Series) -> u32 {
        let mark = mark(series.key.hash());
        let place = match self.free.pop() {
            Some(place) => {
                self.pages[place as usize / PAGE][place as usize % PAGE] = Some(series);
                place
            }
            None => {
                if self.pages.last().is_none_or(|page| page.len() == PAGE) {
                    self.pages.push(Vec::with_capacity(PAGE));
                }
                let pages = self.pages.len();
                let page = &mut self.pages[pages - 1];
                page.push(Some(series));
                ((pages - 1) * PAGE + page.len() - 1) as u32
            }
        };
        self.index.insert_unique(spread(mark), (mark, place), |entry| spread(entry.0));
        place
    }

    pub(crate) fn remove(&mut self, place: u32) -> Option<Series> {
        let series = self.pages.get_mut(place as usize / PAGE)?.get_mut(place as usize % PAGE)?.take()?;
        if let Ok(entry) = self.index.find_entry(spread(mark(series.key.hash())), |entry| entry.1 == place) {
            entry.remove();
        }
        self.aside.as_mut().unwrap_or(&mut self.free).push(place);
        Some(series)
    }

    /// From now on no freed place is used again, so that a place tells which checkpoint chunk its series came from.
    pub(crate) fn keep_places(&mut self) {
        self.aside = Some(Vec::new());
    }

    /// Freed places may be used again.
    pub(crate) fn release_places(&mut self) {
        self.free.extend(self.aside.take().into_iter().flatten());
    }

    /// Number of series.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// One past the last place.
    pub(crate) fn places(&self) -> u32 {
        self.pages.last().map_or(0, |last| ((self.pages.len() - 1) * PAGE + last.len()) as u32)
    }

    /// Bytes of the index and of places that stand empty.
    pub(crate) fn bytes(&self) -> usize {
        self.index.capacity() * size_of::<(u32, u32)>() + (self.pages.len() * PAGE - self.len()) * size_of::<Option<Series>>()
    }
}

/// The part of a hash that the index keeps.
fn mark(hash: SeriesHash) -> u32 {
    hash as u32
}

/// The hash by which the index goes: bits at both ends, where the table looks for them.
fn spread(mark: u32) -> u64 {
    u64::from(mark).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
